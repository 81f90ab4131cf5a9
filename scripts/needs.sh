# For the other scripts: installing what is missing, on Debian and its kin.

die() {
    echo "$0: $*" >&2
    exit 1
}

# need PACKAGE...: install Debian packages, or say what to do.
need() {
    command -v apt-get >/dev/null || die "missing, and there is no apt-get: install what Debian calls '$*'"
    local root=(env DEBIAN_FRONTEND=noninteractive)
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "missing: as root, run: apt-get update && apt-get install -y $*"
        root=(sudo "${root[@]}")
        [ -t 0 ] || root=(sudo -n "${root[@]:1}")
    fi
    echo "== apt-get install $*"
    "${root[@]}" apt-get update -qq || die "apt-get update failed"
    # Slim images leave documentation out of every package; ours is what the tests crawl.
    "${root[@]}" apt-get install -y -qq --no-install-recommends --reinstall \
        -o Dpkg::Options::=--path-include='/usr/share/doc/python3.11*' "$@" </dev/null >/dev/null ||
        die "could not install: $*"
}
