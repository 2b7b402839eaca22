"""The fuzz tests of tests/rlpretrain/test_fuzz.py, with a thousand cases each and a new seed every time.

python -m pytest tests/soak/soak_fuzz.py -o python_files="soak_*.py"
"""

import os

os.environ["RLP_FUZZ_CASES"] = "1000"  # before the import, whose decorators read it

from tests.rlpretrain.test_fuzz import *  # noqa: F403
