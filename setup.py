"""Build of the compiled kernels: a static C library per instruction set and dtype, and extensions.

Everything else is in pyproject.toml. Without a C compiler or Python's headers the installation
succeeds without the compiled backend, with a warning, unless FMNIST_FAST_REQUIRE_COMPILED is set.

FMNIST_FAST_CHECKED=memory builds with all of Cython's checks and with AddressSanitizer and
UndefinedBehaviorSanitizer, =threads with ThreadSanitizer: `make checked`, `make races`.
"""

import os
import platform
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

SANITIZERS = {
    "": [],
    "memory": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "threads": ["-fsanitize=thread"],
}.get(os.environ.get("FMNIST_FAST_CHECKED", ""))
if SANITIZERS is None:
    sys.exit("FMNIST_FAST_CHECKED: must be memory or threads")
CHECKED = bool(SANITIZERS)

# -ffp-contract=off: fused multiply-adds are explicit, so that results do not vary by compiler.
# -g0: Python's own flags include -g, which takes a third of the build time.
FLAGS = ["-O3", "-std=c11", "-ffp-contract=off", "-g" if CHECKED else "-g0", *SANITIZERS]
WARNINGS = ["-Wall", "-Wextra"]  # not for the C code that Cython generates
# Not overflowcheck, which reports shifts of masks; the sanitizer checks signed overflow.
CHECKS = ("boundscheck", "wraparound", "initializedcheck", "nonecheck")
DIRECTIVES = dict.fromkeys(CHECKS, CHECKED) | {"cdivision": not CHECKED}

X86 = platform.machine().lower() in ("x86_64", "amd64")
# C files of kernels/simd, each compiled for float and double, and their flags.
VARIANTS = {"find_kernels": ["-DBUILT_FOR_X86"] if X86 else [], "baseline": []}
if X86:
    VARIANTS |= {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f"]}

# Sources of Cython and C that are included by others.
OPERATIONS = sorted(map(str, Path("kernels/cython_backend").glob("*.px[id]")))
HEADERS = sorted(map(str, Path("kernels/simd").glob("*.h")))


def library(variant: str, suffix: str) -> tuple[str, dict]:
    """A C file as a static library of its own, since setuptools sets flags per library."""
    build = {
        "sources": [f"kernels/simd/{variant}{suffix}.c"],
        "obj_deps": {"": [*HEADERS, f"kernels/simd/{variant}.c"]},  # included by *_double.c
        "cflags": [*FLAGS, *WARNINGS, *VARIANTS[variant]],
    }
    return f"fmnist_{variant}{suffix}", build


def extension(name: str, **options: list) -> Extension:
    """kernels/cython_backend/<name>.pyx."""
    built = Extension(
        f"fmnist_fast.kernels.cython_backend.{name}",
        [f"kernels/cython_backend/{name}.pyx"],
        include_dirs=["kernels"],
        extra_compile_args=FLAGS,
        extra_link_args=["-pthread", *SANITIZERS],
        **options,
    )
    built.cython_directives = DIRECTIVES
    built.cython_c_in_temp = True  # keep generated C out of the source tree
    return built


class ParallelBuildClib(build_clib):
    """Builds the libraries in parallel, as build_ext does extensions."""

    def build_libraries(self, libraries: list) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda one: build_clib.build_libraries(self, [one]), libraries))


def optional(command: type) -> type:
    """The same command, but a failure only skips the compiled backend."""

    class Optional(command):
        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if os.environ.get("FMNIST_FAST_REQUIRE_COMPILED"):
                    raise
                warnings.warn(f"the cython backend was not built: {error}", stacklevel=1)

    return Optional


LIBRARIES = [library(variant, suffix) for suffix in ("", "_double") for variant in VARIANTS]
EXTENSIONS = [
    extension("float32", depends=[*OPERATIONS, *HEADERS]),
    extension("float64", depends=[*OPERATIONS, *HEADERS], define_macros=[("DOUBLE", None)]),
    extension("dispatch"),
]

OPTIONS: dict = {"build_ext": {"parallel": os.cpu_count()}}
if CHECKED:  # separate objects, which an ordinary build must not reuse
    OPTIONS["build"] = {"build_base": f"build/checked-{os.environ['FMNIST_FAST_CHECKED']}"}

WINDOWS = sys.platform == "win32"

setup(
    libraries=[] if WINDOWS else LIBRARIES,
    ext_modules=[] if WINDOWS else EXTENSIONS,
    options=OPTIONS,
    cmdclass={"build_clib": optional(ParallelBuildClib), "build_ext": optional(build_ext)},
)
