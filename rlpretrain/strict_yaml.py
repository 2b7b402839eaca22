"""YAML that people write: no code, and no key twice in one mapping, of which YAML would silently take the last."""

from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"  # `<<`


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Looks at the keys as they are written: what `<<` brings in later may be overridden."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise yaml.YAMLError(
                    f"key '{key.value}' stands twice, in line {lines[name]} and in line {line}; keep one"
                )
            lines[name] = line
        return node


def read_yaml(text: str) -> Any:
    """The one document of ``text``.

    Raises YAMLError when it is malformed or a key stands twice, ValueError for a date that is none, RecursionError for
    brackets by the thousand.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
