"""Prints the versions of all packages that setup.py names, as they are in this environment, for constraints.txt."""

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

HEADER = """\
# The versions that the tests have passed with, on x86-64 Linux, of all packages that setup.py names. `make` installs
# these; `make constraints` writes them anew."""


def main() -> None:
    """Looks every direct dependency up; one that is not installed keeps its range from setup.py and is not printed."""
    names = {Requirement(line).name for line in requires("monet_perception") or []}
    print(HEADER)
    for name in sorted(names, key=str.lower):
        try:
            print(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue


if __name__ == "__main__":
    main()
