# Sourced by the other scripts, or in a terminal (. tools/environment.sh): makes .venv with the tested
# versions (tools/constraints.txt) and activates it. Needs Python 3.11 or newer and nothing else. Only
# activates where .venv is current.

[ -f tools/constraints.txt ] || { echo "tools/constraints.txt is not here; go into the folder of dvtplan" >&2; return 1; }
_stamp() { cat setup.cfg tools/constraints.txt | cksum; }

if [ ! -f .venv/.stamp ] || [ "$(cat .venv/.stamp)" != "$(_stamp)" ]; then
    _python=$(command -v python3.11 || command -v python3) ||
        { echo "python3 not found; install Python 3.11" >&2; return 1; }
    "$_python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo "$_python is $("$_python" --version); dvtplan needs Python 3.11 or newer" >&2; return 1; }
    # Where .venv itself is active, the Python that it was made with: .venv is about to go.
    _python=$("$_python" -c 'import sys; print(sys._base_executable)')
    echo "Installing into .venv (once; a few minutes, mostly PyTorch) ..." >&2
    rm -rf .venv
    "$_python" -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -c tools/constraints.txt -e '.[test,fast,dicom]' || return
    _stamp > .venv/.stamp
fi
. .venv/bin/activate
