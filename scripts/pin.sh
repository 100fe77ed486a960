#!/usr/bin/env bash
# Renews constraints.txt and constraints-bench.txt: the newest versions that pyproject.toml allows, resolved in an empty
# environment. Run it with the oldest Python that is supported (later ones need no more packages), then run the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git ls-files | tar -cf - -T - | tar -xf - -C "$work"
cd "$work"

frozen() { .venv/bin/python -m pip list --format=freeze 2>/dev/null | grep -vE '^(multi-agent-scheduler|setuptools)==' | LC_ALL=C sort -f; }

echo 'pip>=25.1' > constraints.txt # the first that knows dependency groups
make setup
{
  echo '# What `make setup` installs, to the version. Renewed by scripts/pin.sh.'
  frozen
} > pinned.txt
mv pinned.txt constraints.txt

# LiteLLM is raised by hand: some of its releases carried malware, so take one that has been out for a while.
grep '^litellm==' "$root/constraints-bench.txt" > constraints-bench.txt
make .venv/.bench
{
  echo '# What `make bench` installs beyond that. Renewed by scripts/pin.sh, but for litellm, which is raised by hand:'
  echo '# some of its releases carried malware, so take one that has been out for a while.'
  frozen | grep -vxFf constraints.txt
} > pinned.txt
mv pinned.txt constraints-bench.txt

cp constraints.txt constraints-bench.txt "$root/"
