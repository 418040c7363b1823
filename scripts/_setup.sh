# shellcheck shell=bash
# Sourced by the other scripts: goes to the repository root and makes sure that .venv there is complete
# and up to date. Also runs alone (`bash scripts/_setup.sh`) to do just that.
#
#   PYTHON                 the interpreter to make .venv with (default: a 3.10 to 3.12 found on PATH)
#   PIP_EXTRA_INDEX_URL    and every other variable of pip is honoured, for instance to name an index with
#                          CPU builds of torch, which are far smaller than the default ones

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
VENV=$ROOT/.venv
STAMP=$VENV/cipherlearn-setup
INSTALL_LOG=$VENV/install.log

# What the caller's shell has set for other projects must not leak into this environment.
unset PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

say() { printf '[setup] %s\n' "$*" >&2; }

die() {
    printf '[setup] error: %s\n' "$@" >&2
    exit 1
}

# True when "$1" starts and is a Python that the engine has wheels for. It has to be started: a name on
# PATH may be a launcher for a version that is not installed.
is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [[ -n ${PYTHON:-} ]]; then
        is_supported "$PYTHON" || die "PYTHON=$PYTHON does not start, or is not Python 3.10, 3.11 or 3.12."
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3.10 python3 python; do
        if is_supported "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "found no Python 3.10, 3.11 or 3.12 on PATH (the encryption engine has wheels for these only)." \
        "Install one, or name it: PYTHON=/path/to/python3.11 $0"
}

# Two lines. The first says which environment this is: when it changes, .venv is made again. (A copied .venv
# points to the folder that it was copied from, so the folder is part of it.) The second says what belongs
# into it: when only that changes, packages are added or replaced.
fingerprint() {
    "$1" - "$ROOT" <<'PYTHON_CODE'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
files = ("pyproject.toml", "constraints.txt", "scripts/_setup.sh")
for text in (f"{root} {sys.version}".encode(), b"".join((root / f).read_bytes() for f in files)):
    print(hashlib.sha256(text).hexdigest())
PYTHON_CODE
}

# Runs pip with its output in a file, and shows what it is working on: as one changing line on a
# terminal, as a few lasting lines elsewhere.
run_pip() {
    local line what name version started=$SECONDS
    "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" 2>&1 |
        tee "$INSTALL_LOG" |
        while IFS= read -r line; do
            case $line in
                *Downloading*' ('*)
                    IFS=- read -r name version _ <<<"${line#*Downloading }"
                    what="downloading ${name##*/} $version (${line##*\(}"
                    ;;
                'Collecting '*)
                    read -r _ name _ <<<"$line"
                    what="looking for $name"
                    ;;
                'Installing collected'*) what='unpacking all of them (about a minute)' ;;
                *) continue ;;
            esac
            if [[ -t 2 ]]; then
                printf '\r\033[K[setup] %4ds  %.60s' "$((SECONDS - started))" "$what" >&2
            elif [[ $line == *torch-* || $line == Installing* ]]; then
                say "$what"
            fi
        done || {
        [[ -t 2 ]] && printf '\n' >&2
        grep -v '^Requirement already satisfied' "$INSTALL_LOG" | tail -n 25 >&2
        die "installing failed; the whole log is in $INSTALL_LOG."
    }
    [[ -t 2 ]] && printf '\r\033[K' >&2
    return 0
}

make_venv() {
    local python
    case $(uname -sm) in
        'Linux x86_64' | 'Darwin arm64') ;;
        *) say "warning: the encryption engine has no wheels for $(uname -sm), only for Linux x86_64 and macOS" ;;
    esac
    python=$(find_python)
    say "making .venv with $("$python" --version 2>&1)"
    "$python" -m venv --clear "$VENV" >&2 ||
        die "$python cannot make virtual environments." \
            "On Debian and Ubuntu the package python3-venv (or python3.X-venv) is missing."
}

ensure_environment() {
    local python=${PYTHON:-$VENV/bin/python} wanted='' found=''
    if is_supported "$VENV/bin/python" && is_supported "$python"; then
        wanted=$(fingerprint "$python")
        [[ -f $STAMP ]] && found=$(<"$STAMP")
    fi
    if [[ -n $wanted && $found == "$wanted" ]]; then
        return
    elif [[ -n $wanted && ${found%%$'\n'*} == "${wanted%%$'\n'*}" ]]; then
        say 'pyproject.toml, constraints.txt or the set-up itself changed: bringing .venv up to date'
        rm -f "$STAMP"
    else
        make_venv
        say 'installing cipherlearn and its tools into .venv (some minutes the first time)'
    fi
    trap 'say "interrupted; the same command starts again"; exit 130' INT
    run_pip --constraint "$ROOT/constraints.txt" --editable '.[dev]'
    # It asks for an old onnx and runs with the current one; what else it needs is in the extra `dev`.
    run_pip --constraint "$ROOT/constraints.txt" --no-deps hummingbird-ml
    # Written last and in one step: after an interruption there is no stamp, and the next run starts over.
    fingerprint "$VENV/bin/python" >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
    trap - INT
    say "done: .venv is complete ($SECONDS s)"
}

ensure_environment
export PATH="$VENV/bin:$PATH"
export VIRTUAL_ENV="$VENV"
