"""The pages of ``md-data``, and what the pages of all commands are made of: options, groups, one-line errors."""
