#!/bin/sh
# Sets up Roomwire beside this file and runs the server.
#
#   start.sh [port] [option ...]
#
# The port is 7117 unless given; the options are those of roomwire-server (start.sh --help lists them).
# $PYTHON names the Python interpreter (3.11 or newer) to set up with.
set -eu

port=7117
case $#,${1-} in
0,* | *,-[!0-9]*) ;; # no port, but perhaps options
*)
    port=$1
    shift
    ;;
esac
# At most five digits, so that the comparison cannot overflow.
case $port in
'' | 0* | *[!0-9]* | ??????*) bad=yes ;;
*) [ "$port" -le 65535 ] && bad=no || bad=yes ;;
esac
if [ "$bad" = yes ]; then
    printf 'roomwire: the port must be a number from 1 to 65535, found: %s\n' "$port" >&2
    exit 2
fi

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
sh "$root/setup.sh" run
printf 'roomwire: starting the server on port %s\n' "$port" >&2
exec "$root/.venv/bin/roomwire-server" --port "$port" "$@"
