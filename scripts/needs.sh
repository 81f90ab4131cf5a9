# For the other scripts: installing what is missing, on Debian and its kin.

die() {
    echo "$0: $*" >&2
    exit 1
}

# install PACKAGE...: install Debian packages; where that is impossible, say why and return 1.
install() {
    local root=(env DEBIAN_FRONTEND=noninteractive)
    if ! command -v apt-get >/dev/null; then
        echo "missing, and there is no apt-get: install what Debian calls '$*'" >&2
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "missing: as root, run: apt-get update && apt-get install -y $*" >&2
            return 1
        fi
        root=(sudo "${root[@]}")
        [ -t 0 ] || root=(sudo -n "${root[@]:1}")
    fi
    # Slim images leave documentation out of every package; ours is what the tests crawl.
    root+=(apt-get -qq -o Dpkg::Options::=--path-include='/usr/share/doc/python3.11*')
    echo "== apt-get install $*"
    "${root[@]}" update || return 1
    "${root[@]}" install -y --no-install-recommends --reinstall "$@" </dev/null >/dev/null && return
    # A package that this release lacks must not keep out the others.
    local package status=0
    for package; do
        "${root[@]}" install -y --no-install-recommends --reinstall "$package" </dev/null >/dev/null || status=1
    done
    return "$status"
}

# need PACKAGE...: install Debian packages, or end.
need() {
    install "$@" || die "could not install: $*"
}
