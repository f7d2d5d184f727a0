"""The table of all parsers of content, each with the call that reads it as the commands do; tests and ``make fuzz`` run over it."""

from parsers_of_bags import PARSERS as OF_BAGS
from parsers_of_data import PARSERS as OF_DATA
from parsers_of_models import PARSERS as OF_MODELS

PARSERS = {parser.name: parser for parser in (*OF_DATA, *OF_BAGS, *OF_MODELS)}
