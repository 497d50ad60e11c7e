"""Builds the extension, if it can be built. pyproject.toml has the rest."""

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PURE = os.environ.get("CACHESIDECAR_PURE") == "1" or not sys.platform.startswith("linux")
# From 3.10 on one build serves all later versions; 3.9 cannot say METH_FASTCALL in that way.
STABLE = sys.version_info >= (3, 10)


class OptionalBuild(build_ext):
    """Goes on without the extension, and says so."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            print(
                f"cachesidecar: built without its extension ({error}). Reads of the shared memory are in Python, "
                "only on x86-64. For the extension install a C compiler and Python's headers "
                "(Debian: gcc python3-dev), and install again.",
                file=sys.stderr,
            )


extension = Extension(
    "cachesidecar._native",
    ["src/cachesidecar/_native.c"],
    depends=["src/cachesidecar/cachesidecar.h"],
    extra_compile_args=["-std=gnu11", "-O3", "-Wall", "-Wextra"],
    extra_link_args=["-Wl,-s"],
    define_macros=[("Py_LIMITED_API", "0x030A0000")] if STABLE else [],
    py_limited_api=STABLE,
    optional=True,
)

setup(
    ext_modules=[] if PURE else [extension],
    cmdclass={"build_ext": OptionalBuild},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if STABLE and not PURE else {},
)
