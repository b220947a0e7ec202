"""Prints the versions of the packages that an installation with some extras needs, as they are in this environment.

python .ci/lock.py demo parquet shards > requirements.lock
"""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

NAME = "excitation-grounding"
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?")
EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


def versions(extras: frozenset[str]) -> dict[str, str]:
    """The versions by package: all that is installed of what the project and these extras need."""
    found: dict[str, str] = {}
    waiting, seen = [(NAME, extras)], set()
    while waiting:
        name, chosen = waiting.pop()
        name = re.sub(r"[-_.]+", "-", name).lower()
        if (name, chosen) in seen:
            continue
        seen.add((name, chosen))
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another system or another Python
            continue
        if name == NAME:
            project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))["project"]
            lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in chosen)]
            lines = [line for some in lists for line in some]
        else:
            lines = package.requires or []
            found[name] = package.version.partition("+")[0]  # a build such as +cpu is not in every index
        for line in lines:
            requirement, _, marker = line.partition(";")
            extra = EXTRA.search(marker)
            if not extra or extra[1] in chosen:
                required, more = REQUIREMENT.match(requirement).groups()
                waiting.append((required, frozenset(filter(None, re.split(r"[,\s]+", more or "")))))
    return dict(sorted(found.items()))


if __name__ == "__main__":
    print(f"# The versions that the tests ran with; make lock writes this file. Extras: {', '.join(sys.argv[1:])}")
    print("# pip install -r requirements.lock && pip install --no-deps .")
    for package_name, version in versions(frozenset(sys.argv[1:])).items():
        print(f"{package_name}=={version}")
