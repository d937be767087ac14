// The peer of a comparison: what one would write by hand in Go for the rpc that the gateway serves by a route. It receives
// a call, asks a NATS service in JSON within the caller's deadline, and answers.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const subject = "bench.check"

// An item of a request, as the service reads it.
type item struct {
	ProductID string `json:"productId"`
	Quantity  int32  `json:"quantity"`
}

type availability struct {
	ProductID string `json:"productId"`
	Requested int32  `json:"requested"`
	Available int32  `json:"available"`
}

type reply struct {
	Available bool           `json:"available"`
	Items     []availability `json:"items"`
}

type shop struct{ connection *nats.Conn }

func (s *shop) check(ctx context.Context, request *CheckRequest) (*CheckReply, error) {
	items := make([]item, len(request.Items))
	for i, wanted := range request.Items {
		items[i] = item{wanted.ProductId, wanted.Quantity}
	}
	payload, err := json.Marshal(items)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	message, err := s.connection.RequestWithContext(ctx, subject, payload)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, status.Error(codes.Unavailable, "no responders")
	case err != nil:
		return nil, status.FromContextError(err).Err()
	}
	var found reply
	if err := json.Unmarshal(message.Data, &found); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	answer := &CheckReply{Available: found.Available, Items: make([]*Availability, len(found.Items))}
	for i, of := range found.Items {
		answer.Items[i] = &Availability{ProductId: of.ProductID, Requested: of.Requested, Available: of.Available}
	}
	return answer, nil
}

func handle(server any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	request := new(CheckRequest)
	if err := decode(request); err != nil {
		return nil, err
	}
	return server.(*shop).check(ctx, request)
}

func main() {
	address := flag.String("addr", "127.0.0.1:50051", "address to listen on")
	url := flag.String("nats", nats.DefaultURL, "URL of NATS")
	flag.Parse()
	connection, err := nats.Connect(*url)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.v1.Shop",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: handle}},
	}, &shop{connection})
	log.Fatal(server.Serve(listener))
}
