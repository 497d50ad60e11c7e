"""Lets the tests import the package from src, and each other's helpers."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (os.path.join(os.path.dirname(HERE), "src"), HERE):
    if folder not in sys.path:
        sys.path.insert(0, folder)
