#!/bin/sh
# Sets up Roomwire with its development tools beside this file and runs the checks and the tests.
#
#   test.sh                   ruff, mypy --strict, then all tests
#   test.sh argument ...      pytest alone, with these arguments; paths are relative to this file's folder
#
# The last line of output is pytest's; the exit status is 0 only if everything passed.
# $PYTHON names the Python interpreter (3.11 or newer) to set up with.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
sh "$root/setup.sh" dev
cd -- "$root"

# The tests start hundreds of programs, which should not compile the same modules again each time.
unset PYTHONDONTWRITEBYTECODE

failed=0
# Every check runs, whatever the ones before it said: one run shows all there is to repair.
check() {
    printf 'roomwire: %s\n' "$*"
    .venv/bin/python -m "$@" && return
    failed=1
    printf 'roomwire: FAILED: %s\n' "$*"
}

if [ $# -eq 0 ]; then
    check ruff check
    check ruff format --check
    check mypy --strict
fi
# Three workers for two cores, because tests of real processes also wait.
.venv/bin/python -m pytest -n 3 --dist worksteal "$@" || failed=1
exit "$failed"
