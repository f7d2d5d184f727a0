"""The pages of ``md-data``, and what the pages of all commands share: options, groups, one-line errors."""
