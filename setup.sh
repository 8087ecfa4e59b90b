#!/bin/sh
# Sets up the virtual environment .venv beside this file, for start.sh (run) and test.sh (dev).
#
#   setup.sh run|dev
#
# $PYTHON names the interpreter; without it, the first usable of python3.11, 3.12, 3.13 and python3 is taken.
# A stamp in .venv says what it was made from, so that the next call finds nothing to do. What goes wrong is
# told in one line on standard error, with exit status 1.
set -eu

say() { printf 'roomwire: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}

packages=${1-}
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
case $packages in
run) target=$root ;;
dev) target="${root}[dev]" ;;
*) fail "setup.sh: expected run or dev, found '$packages'" ;;
esac
venv=$root/.venv
stamp=$venv/roomwire-stamp

# Prints the version. Exit status 2: too old; 3: cannot make virtual environments.
probe='
import sys
print("%d.%d.%d" % tuple(sys.version_info[:3]))
if sys.version_info < (3, 11):
    sys.exit(2)
from importlib.util import find_spec
sys.exit(0 if find_spec("venv") and find_spec("ensurepip") else 3)
'

# Sets $python (absolute) and $version, or fails.
find_python() {
    if [ -n "${PYTHON-}" ]; then set -- "$PYTHON"; else set -- python3.11 python3.12 python3.13 python3; fi
    bare=
    version=
    for candidate in "$@"; do
        python=$(command -v -- "$candidate") || continue
        case $python in /*) ;; *) python=$PWD/$python ;; esac
        # A name on the PATH may be a launcher that has nothing to launch: only running it tells.
        status=0
        version=$("$python" -I -c "$probe" 2>/dev/null </dev/null) || status=$?
        case $status in
        0) return ;;
        3) bare=${bare:-$python} ;;
        esac
    done
    if [ -n "$bare" ]; then
        fail "$bare lacks the module venv or ensurepip (on Debian and Ubuntu: apt-get install python3-venv)"
    elif [ -n "${PYTHON-}" ]; then
        fail "needs Python 3.11 or newer, but PYTHON=$PYTHON is ${version:-not a Python that runs}"
    fi
    fail "needs Python 3.11 or newer, found none as python3.11, python3.12, python3.13 or python3"
}

# The folder counts, since neither a virtual environment nor an editable installation can be moved.
made_from="$(cksum <"$root/pyproject.toml") $root"
current=no
if [ -x "$venv/bin/python" ] && [ -f "$stamp" ]; then
    { IFS= read -r had_from && IFS= read -r had_python && IFS= read -r had_packages; } <"$stamp" || had_from=
    [ "$had_from" != "$made_from" ] || current=yes
fi
if [ "$current" = no ] || [ -n "${PYTHON-}" ]; then
    find_python
    [ "$current" = no ] || [ "$had_python" = "$python" ] || current=no
fi

if [ "$current" = yes ]; then
    python=$had_python
    case $had_packages in dev | "$packages") exit 0 ;; esac
else
    say "making the virtual environment .venv with Python $version ($python)"
    output=$("$python" -I -m venv --clear "$venv" 2>&1 </dev/null) ||
        fail "making .venv failed: $(printf '%s\n' "$output" | tail -n 1)"
fi

say "installing Roomwire and what it needs into .venv (this may take a minute)"
rm -f "$stamp"
if ! "$venv/bin/python" -I -m pip install --quiet --disable-pip-version-check --no-input \
    --editable "$target" >"$venv/setup.log" 2>&1 </dev/null; then
    reason=$(grep -i '^ *error' "$venv/setup.log" | tail -n 1)
    fail "installation failed: ${reason:-$(tail -n 1 "$venv/setup.log")} (all of it: $venv/setup.log)"
fi
printf '%s\n' "$made_from" "$python" "$packages" >"$stamp"
