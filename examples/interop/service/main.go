// TestService of grpc/testing/test.proto, and Variants of variants.proto, as a NATS micro service: go run ./service [NATS_URL].
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// How many requests that take long are worked on at a time.
const most = 256

// A status that the gateway answers the caller with.
type status struct {
	code    codes.Code
	message string
}

// The service, and the most bytes of a message.
type service struct {
	client  *nats.Conn
	largest int
	running chan struct{}
	sleeps  *sleeps
}

// Refuses a request: the number and name of ADR-32 in headers, and the status as JSON in the body. The message may have
// line breaks and any character of Unicode, which a header of NATS may not.
func refuse(request micro.Request, refusal status) {
	body, err := json.Marshal(map[string]any{"code": int(refusal.code), "message": refusal.message})
	if err == nil {
		_, trailing := echoes(request)
		err = request.Error(number(refusal.code), refusal.code.String(), body, micro.WithHeaders(trailing))
	}
	if err != nil {
		log.Print(err)
	}
}

// The number of a status: the HTTP status nearest in meaning.
func number(code codes.Code) string {
	switch code {
	case codes.InvalidArgument:
		return "400"
	case codes.NotFound:
		return "404"
	case codes.ResourceExhausted:
		return "429"
	case codes.Unimplemented:
		return "501"
	default:
		return "500"
	}
}

// Reads a request in the encoding of its Content-Type, or refuses it.
func read(request micro.Request, message proto.Message) bool {
	unmarshal := protojson.Unmarshal
	if binary(request) {
		unmarshal = proto.Unmarshal
	}
	err := unmarshal(request.Data(), message)
	if err != nil {
		refuse(request, status{codes.InvalidArgument, err.Error()})
	}
	return err == nil
}

// Answers in the encoding of the request, or refuses if that cannot be sent.
func answer(request micro.Request, message proto.Message, headers ...micro.Headers) bool {
	marshal := protojson.Marshal
	if binary(request) {
		marshal = proto.Marshal
	}
	payload, err := marshal(message)
	if err == nil {
		err = request.Respond(payload, with(headers...))
	}
	if err != nil {
		refuse(request, status{codes.Internal, err.Error()})
	}
	return err == nil
}

// Whether the payloads of a request and its replies are in protobuf's encoding, and not in JSON.
func binary(request micro.Request) bool {
	return request.Headers().Get("Content-Type") == "application/protobuf"
}

// The status that a caller asks for.
func wanted(echo *testpb.EchoStatus) *status {
	if echo.GetCode() == 0 {
		return nil
	}
	return &status{codes.Code(echo.GetCode()), echo.GetMessage()}
}

// A payload with so many zeros. In JSON it is longer by a third, and what nats.go then refuses is told the caller.
func (s *service) zeros(size int32) (*testpb.Payload, *status) {
	if size < 0 || int(size) > s.largest {
		return nil, &status{codes.InvalidArgument, fmt.Sprintf("the size %d is not within 0 and %d", size, s.largest)}
	}
	return &testpb.Payload{Body: make([]byte, size)}, nil
}

func (s *service) emptyCall(request micro.Request) {
	if read(request, &testpb.Empty{}) {
		answer(request, &testpb.Empty{})
	}
}

func (s *service) unimplementedCall(request micro.Request) {
	refuse(request, status{codes.Unimplemented, "UnimplementedCall is not implemented"})
}

func (s *service) unaryCall(request micro.Request) {
	var asked testpb.SimpleRequest
	if !read(request, &asked) {
		return
	}
	refusal := wanted(asked.GetResponseStatus())
	payload, wrong := s.zeros(asked.GetResponseSize())
	if refusal == nil {
		refusal = wrong
	}
	if refusal != nil {
		refuse(request, *refusal)
		return
	}
	initial, trailing := echoes(request)
	answer(request, &testpb.SimpleResponse{Payload: payload}, initial, trailing)
}

func (s *service) streamingOutputCall(request micro.Request) {
	s.stream(request, func(asked *testpb.StreamingOutputCallRequest) {
		if !s.send(request, asked) {
			return
		}
		if refusal := wanted(asked.GetResponseStatus()); refusal != nil {
			refuse(request, *refusal)
			return
		}
		// An empty message without headers is the end, or one with this header.
		initial, trailing := echoes(request)
		if len(trailing) > 0 {
			trailing["Nats-Stream-End"] = []string{"true"}
		}
		// If it is the only reply, it begins the response as well.
		if len(asked.GetResponseParameters()) > 0 || len(trailing) == 0 {
			initial = nil
		}
		if err := request.Respond(nil, with(initial, trailing)); err != nil {
			log.Print(err)
		}
	})
}

// Parses the request of a stream, and sends it beside other requests.
func (s *service) stream(request micro.Request, send func(*testpb.StreamingOutputCallRequest)) {
	var asked testpb.StreamingOutputCallRequest
	if read(request, &asked) {
		s.beside(request, func() { send(&asked) })
	}
}

// Works on a request that takes long, beside others.
func (s *service) beside(request micro.Request, work func()) {
	select {
	case s.running <- struct{}{}:
		go func() {
			defer func() { <-s.running }()
			work()
		}()
	default:
		refuse(request, status{codes.ResourceExhausted, fmt.Sprintf("%d requests are being worked on", most)})
	}
}

// Sends the messages that are asked for.
func (s *service) send(request micro.Request, asked *testpb.StreamingOutputCallRequest) bool {
	for _, parameters := range asked.GetResponseParameters() {
		payload, wrong := s.zeros(parameters.GetSize())
		if wrong != nil {
			refuse(request, *wrong)
			return false
		}
		time.Sleep(time.Duration(parameters.GetIntervalUs()) * time.Microsecond)
		initial, _ := echoes(request)
		if !answer(request, &testpb.StreamingOutputCallResponse{Payload: payload}, initial) {
			return false
		}
	}
	return true
}

func (s *service) sleep(request micro.Request) {
	s.stream(request, func(asked *testpb.StreamingOutputCallRequest) {
		s.untilTold(request, asked.GetPayload(), func() bool { return s.send(request, asked) })
	})
}

func (s *service) sleepUnary(request micro.Request) {
	var asked testpb.SimpleRequest
	if read(request, &asked) {
		s.beside(request, func() {
			s.untilTold(request, asked.GetPayload(), func() bool { return true })
		})
	}
}

// Sends, and then waits until the gateway tells that nobody waits. The payload is the name of the sleep.
func (s *service) untilTold(request micro.Request, name *testpb.Payload, send func() bool) {
	headers := request.Headers()
	told, err := s.client.SubscribeSync(headers.Get("Request-Cancel"))
	if err != nil {
		refuse(request, status{codes.InvalidArgument, "Request-Cancel: " + err.Error()})
		return
	}
	defer func() { _ = told.Unsubscribe() }()
	millis, err := strconv.Atoi(headers.Get("Request-Timeout"))
	// From here on the gateway's message arrives.
	if err = errors.Join(err, s.client.FlushTimeout(5*time.Second)); err != nil {
		refuse(request, status{codes.Internal, err.Error()})
		return
	}
	if !s.sleeps.begin(string(name.GetBody())) {
		refuse(request, status{codes.ResourceExhausted, "there were too many sleeps, or one of this name"})
		return
	}
	if !send() {
		return
	}
	_, err = told.NextMsg(time.Duration(millis)*time.Millisecond + 10*time.Second)
	s.sleeps.end(string(name.GetBody()), err == nil)
}

func (s *service) getSleep(request micro.Request) {
	var name wrapperspb.StringValue
	if !read(request, &name) {
		return
	}
	state, there := s.sleeps.state(name.GetValue())
	if !there {
		refuse(request, status{codes.NotFound, "there is no sleep " + strconv.Quote(name.GetValue())})
		return
	}
	answer(request, wrapperspb.String(state))
}

func main() {
	url := nats.DefaultURL
	if len(os.Args) > 1 {
		url = os.Args[1]
	}
	client, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	s := &service{client, int(client.MaxPayload()), make(chan struct{}, most), newSleeps()}
	micros, err := micro.AddService(client, micro.Config{Name: "interop", Version: "1.0.0", QueueGroup: "interop"})
	if err != nil {
		log.Fatal(err)
	}
	for name, handler := range map[string]micro.HandlerFunc{
		"empty_call":            s.emptyCall,
		"unary_call":            s.unaryCall,
		"streaming_output_call": s.streamingOutputCall,
		"unimplemented_call":    s.unimplementedCall,
		"sleep":                 s.sleep,
		"sleep_unary":           s.sleepUnary,
		"get_sleep":             s.getSleep,
	} {
		if err := micros.AddEndpoint(name, handler, micro.WithEndpointSubject("interop."+name)); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("interop: answers on interop.*")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	<-stop
}
