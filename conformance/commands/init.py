"""`roomwire-check init`: writes a skeleton for one role: an adapter or a config file, a baseline, a CI workflow.

Each skeleton runs at once and gets a verdict. Existing files are not overwritten.
"""

from pathlib import Path

from conformance.commands.arguments import Subparsers, folder
from conformance.files import SKELETONS
from conformance.harness.exit_status import CONFORMS, UsageError

_SHARED = ("roomwire-baseline.toml", "roomwire.yml")
_ROLES = {
    "server": ("roomwire-server.toml", "./my-server --port {port}", "--config roomwire-server.toml"),
    "client": ("client_adapter.py", "python3 client_adapter.py {host} {port}", ""),
    "codec": ("codec_adapter.py", "python3 codec_adapter.py", ""),
}


def add_to(subparsers: Subparsers) -> None:
    """Adds the command to a parser's subparsers."""
    parser = subparsers.add_parser("init", help="write a skeleton that runs at once")
    parser.add_argument("role", choices=tuple(_ROLES), metavar="ROLE", help=" or ".join(_ROLES))
    parser.add_argument(
        "--output", type=folder, default=Path("."), metavar="DIR", help="default: the current directory"
    )
    parser.set_defaults(run=lambda args: _run(args.role, args.output))


def _run(role: str, output: Path) -> int:
    """Writes the files of a role, and prints the command that uses them. Raises UsageError."""
    own, command, options = _ROLES[role]
    options = f"{options} --baseline roomwire-baseline.toml".strip()
    files = {output / name: (SKELETONS / name).read_text(encoding="utf-8") for name in (own, *_SHARED)}
    for path in files:
        if path.exists():
            raise UsageError(f"{path} already exists")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            for mark, value in (("@ROLE@", role), ("@COMMAND@", command), ("@OPTIONS@", options)):
                text = text.replace(mark, value)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(str(error)) from None
    print("\n".join(f"wrote {path}" for path in files))
    print(f"next, in {output}: roomwire-check {role} --exec '{command}' {options}")
    return CONFORMS
