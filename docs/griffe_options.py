"""What griffe asks as it reads the code for the pages of the Python API: a config's option is shown with its default alone."""

from __future__ import annotations

from typing import Any

from griffe import Attribute, ExprCall, Extension


class OptionDefaults(Extension):
    """Put ``learning_rate = 0.0001`` where the code says ``learning_rate = option(0.0001, "Adam's learning rate.", ...)``."""

    def on_attribute_instance(self, *, attr: Attribute, **_rest: Any) -> None:
        """Called for each attribute, before griffe makes a dataclass's signature of them."""
        value = attr.value
        if isinstance(value, ExprCall) and str(value.function) == "option":
            attr.value = value.arguments[0]
