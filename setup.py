"""The compiled kernels: a library of C loops per instruction set and type, and what calls them.

Everything else is in pyproject.toml. Without a C compiler or Python's headers the installation
succeeds without them, with a warning, unless FMNIST_FAST_REQUIRE_COMPILED is set.

FMNIST_FAST_CHECKED=memory builds them with all of Cython's checks and with the sanitizers of
addresses and of undefined behaviour, =threads with that of data races, for tests: `make checked`,
`make races`.
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

# -ffp-contract=off: every fused multiply-add is written out, so that no compiler moves a bit.
FLAGS = ["-O3", "-std=c11", "-ffp-contract=off"]
WARNINGS = ["-Wall", "-Wextra"]  # not for what Cython writes
SANITIZERS = {
    "": [],
    "memory": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "threads": ["-fsanitize=thread"],
}.get(os.environ.get("FMNIST_FAST_CHECKED", ""))
if SANITIZERS is None:
    sys.exit("FMNIST_FAST_CHECKED is neither memory nor threads")
CHECKED = bool(SANITIZERS)
# Python asks for what debuggers read, which takes a third of the time and most of the room.
FLAGS.append("-g" if CHECKED else "-g0")
# Not overflowcheck: it takes the shifts of masks for overflows. The sanitizer checks signed ones.
CHECKS = ("boundscheck", "wraparound", "initializedcheck", "nonecheck")
DIRECTIVES = dict.fromkeys(CHECKS, CHECKED) | {"cdivision": not CHECKED}
X86 = platform.machine().lower() in ("x86_64", "amd64")
INSTRUCTION_SETS = {"baseline": []}
if X86:
    INSTRUCTION_SETS |= {"avx2": ["-mavx2", "-mfma"], "avx512": ["-mavx512f"]}

HEADERS = [
    f"kernels/simd/{name}.h"
    for name in ("real", "loops", "loops_body", "vector", "prefetch", "team", "clock")
]


# What a source includes is not its own: the files for double include those for float.
INCLUDED = [f"kernels/simd/{name}.c" for name in ("find", *INSTRUCTION_SETS)]


def library(source: str, flags: list[str]) -> tuple[str, dict]:
    """One C file as a static library of its own, since flags belong to libraries."""
    build = {
        "sources": [f"kernels/simd/{source}.c"],
        "obj_deps": {"": [*HEADERS, *INCLUDED]},
        "cflags": [*FLAGS, *WARNINGS, *flags, *SANITIZERS],
    }
    return f"fmnist_{source}", build


LIBRARIES = [
    library(name + suffix, flags)
    for suffix in ("", "_double")
    for name, flags in {"find": ["-DBUILT_FOR_X86"] if X86 else [], **INSTRUCTION_SETS}.items()
]


class SideBySide(build_clib):
    """The libraries side by side, as build_ext can build the extensions."""

    def build_libraries(self, libraries: list) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda one: build_clib.build_libraries(self, [one]), libraries))


def optional(command: type) -> type:
    """The same command, whose failure costs the compiled backend and not the installation."""

    class Optional(command):
        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if os.environ.get("FMNIST_FAST_REQUIRE_COMPILED"):
                    raise
                warnings.warn(f"the cython backend was not built: {error}", stacklevel=1)

    return Optional


def extension(name: str, **more: list) -> Extension:
    """kernels/cython_backend/<name>.pyx."""
    built = Extension(
        f"fmnist_fast.kernels.cython_backend.{name}",
        [f"kernels/cython_backend/{name}.pyx"],
        include_dirs=["kernels"],
        extra_compile_args=[*FLAGS, *SANITIZERS],
        extra_link_args=["-pthread", *SANITIZERS],
        **more,
    )
    built.cython_directives = DIRECTIVES
    built.cython_c_in_temp = True  # generated C does not belong beside the sources
    return built


OPERATIONS = [*sorted(map(str, Path("kernels/cython_backend").glob("*.pxi"))), *HEADERS]
EXTENSIONS = [
    extension("float32", depends=OPERATIONS),
    extension("float64", depends=OPERATIONS, define_macros=[("DOUBLE", None)]),
    extension("dispatch"),
]

OPTIONS: dict = {"build_ext": {"parallel": os.cpu_count()}}
if CHECKED:  # objects that stay apart, or else the next ordinary build would take them for its own
    OPTIONS["build"] = {"build_base": f"build/checked-{os.environ['FMNIST_FAST_CHECKED']}"}

WINDOWS = sys.platform == "win32"

setup(
    libraries=[] if WINDOWS else LIBRARIES,
    ext_modules=[] if WINDOWS else EXTENSIONS,
    options=OPTIONS,
    cmdclass={"build_clib": optional(SideBySide), "build_ext": optional(build_ext)},
)
