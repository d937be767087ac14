# Programs from Debian's packages, below target/ci-tools, for checks that source this file. Packages are unpacked, not
# installed: an installed package might start a server.

# Downloads a package, and extracts programs from it.
unpack() {
    local package=$1 program work bin="$PWD/target/ci-tools/bin"
    shift
    for program in "$@"; do [ -x "$bin/$program" ] || break; done
    [ -x "$bin/$program" ] && return
    mkdir -p "$bin"
    work=$(mktemp -d)
    (
        cd "$work"
        { apt-get -qq download "$package" || { apt-get -qq update && apt-get -qq download "$package"; }; } >log 2>&1 \
            && dpkg-deb --extract "$package"_*.deb . >>log 2>&1 || { tail -n 5 log && exit 1; }
        for program in "$@"; do cp "usr/bin/$program" "$bin/" || exit 1; done
    ) || { rm -rf "$work" && return 1; }
    rm -rf "$work"
}
