package main

import (
	"maps"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// The metadata that gRPC's interop servers send back: one at the beginning of the response, and one behind it.
const (
	echoInitial  = "x-grpc-test-echo-initial"
	echoTrailing = "x-grpc-test-echo-trailing-bin"
)

// The headers of a reply that send back the metadata of a request. Values are not looked at: they are as they came.
func echoes(request micro.Request) (initial, trailing micro.Headers) {
	initial, trailing = micro.Headers{}, micro.Headers{}
	if values := request.Headers().Values(echoInitial); len(values) > 0 {
		initial[echoInitial] = values
	}
	if values := request.Headers().Values(echoTrailing); len(values) > 0 {
		trailing["Trailer-"+echoTrailing] = values
	}
	return initial, trailing
}

// A reply with all of these headers; without any it has none.
func with(headers ...micro.Headers) micro.RespondOpt {
	all := micro.Headers{}
	for _, some := range headers {
		maps.Copy(all, some)
	}
	if len(all) == 0 {
		return func(*nats.Msg) {}
	}
	return micro.WithHeaders(all)
}
