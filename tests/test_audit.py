"""The rule for licences. What is installed is held to it by `make audit`."""

import pytest

from tests.audit import allowed


@pytest.mark.parametrize(
    ("licence", "is_allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("MPL-2.0", True),
        ("GNU Lesser General Public License v2 or later (LGPLv2+)", True),
        ("LGPL-3.0-only", True),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-or-later", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("GNU Affero General Public License v3", False),
        ("CC BY-NC 4.0, non-commercial", False),
        ("Other/Proprietary License", False),
        ("", False),
    ],
)
def test_licences(licence: str, is_allowed: bool) -> None:
    assert allowed(licence) == is_allowed
