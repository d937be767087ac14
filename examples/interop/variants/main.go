// What grpc-go's interop client tests by streams both ways, with the streams that routes have, through a gateway:
// go run ./variants [-address HOST:PORT]. Prints each case with its result; the exit code is 1 if one has failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// The most that one case takes.
	limit = 20 * time.Second
	// The time of a call to a service that does not answer.
	brief = 500 * time.Millisecond
	// In place of a number of messages: a call without a stream.
	unary = -1
)

// What is called.
type target struct {
	connection *grpc.ClientConn
	tests      testpb.TestServiceClient
}

// A message of each kind: plain, and what special_status_message sends.
var messages = []string{"test status message", "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n", "100%25 of \"it\"", ""}

// The code and the message of the service arrive: of a call, of a stream, and of one that has begun.
func statusCodeAndMessage(ctx context.Context, to target) error {
	for _, message := range messages {
		for _, code := range []codes.Code{codes.Unknown, codes.Aborted, codes.DataLoss, codes.Unauthenticated} {
			echo := &testpb.EchoStatus{Code: int32(code), Message: message}
			wanted := status.Error(code, message)
			_, err := to.tests.UnaryCall(ctx, &testpb.SimpleRequest{ResponseStatus: echo})
			if err := same("UnaryCall", err, wanted); err != nil {
				return err
			}
			for first := range 2 {
				request := &testpb.StreamingOutputCallRequest{ResponseStatus: echo}
				for range first {
					request.ResponseParameters = append(request.ResponseParameters, &testpb.ResponseParameters{Size: 1})
				}
				stream, err := to.tests.StreamingOutputCall(ctx, request)
				for range first {
					if err == nil {
						_, err = stream.Recv()
					}
				}
				if err != nil {
					return fmt.Errorf("StreamingOutputCall, before its status: %w", err)
				}
				_, err = stream.Recv()
				if err := same(fmt.Sprintf("StreamingOutputCall after %d messages", first), err, wanted); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Whether a call ended with this code and message.
func same(call string, is, wanted error) error {
	if is == nil || is.Error() != wanted.Error() {
		return fmt.Errorf("%s: %q, not %q", call, fmt.Sprint(is), wanted)
	}
	return nil
}

// The status of an rpc that the service refuses is the service's, and not what the gateway says of rpcs it does not know.
func unimplementedMethod(ctx context.Context, to target) error {
	_, err := to.tests.UnimplementedCall(ctx, &testpb.Empty{})
	return same("UnimplementedCall", err, status.Error(codes.Unimplemented, "UnimplementedCall is not implemented"))
}

// The service is told when the caller leaves before it is answered.
func cancelAfterBegin(ctx context.Context, to target) error {
	return errors.Join(cancelled(ctx, to, unary), cancelled(ctx, to, 0))
}

// The service is told when the caller leaves within the stream.
func cancelAfterFirstResponse(ctx context.Context, to target) error {
	return cancelled(ctx, to, 1)
}

// Leaves a sleep behind so many messages.
func cancelled(ctx context.Context, to target, messages int) error {
	leaving, leave := context.WithCancel(ctx)
	defer leave()
	name, end, err := sleep(leaving, to, messages)
	if err != nil {
		return err
	}
	if err := became(ctx, to, name, "sleeping"); err != nil {
		return err
	}
	leave()
	if err := end(); status.Code(err) != codes.Canceled {
		return fmt.Errorf("the call ended with %v, not CANCELLED", err)
	}
	return became(ctx, to, name, "cancelled")
}

// A call ends at its deadline, and the service is told.
func timeoutOnSleepingServer(ctx context.Context, to target) error {
	for _, messages := range []int{unary, 0, 1} {
		begun := time.Now()
		waiting, leave := context.WithTimeout(ctx, brief)
		defer leave()
		name, end, err := sleep(waiting, to, messages)
		if err == nil {
			err = end()
		}
		if took := time.Since(begun); status.Code(err) != codes.DeadlineExceeded || took < brief/2 {
			return fmt.Errorf("after %v: %v, not DEADLINE_EXCEEDED after %v", took, err, brief)
		}
		if err := became(ctx, to, name, "cancelled"); err != nil {
			return err
		}
	}
	return nil
}

// Calls SleepUnary, or Sleep and reads so many messages: the name of the call, and what waits for its end.
func sleep(ctx context.Context, to target, messages int) (string, func() error, error) {
	name := fmt.Sprintf("%d %d", os.Getpid(), time.Now().UnixNano())
	payload := &testpb.Payload{Body: []byte(name)}
	if messages == unary {
		ended := make(chan error, 1)
		go func() {
			request, reply := &testpb.SimpleRequest{Payload: payload}, &testpb.SimpleResponse{}
			ended <- to.connection.Invoke(ctx, "/natsgateway.interop.v1.Variants/SleepUnary", request, reply)
		}()
		return name, func() error { return <-ended }, nil
	}
	request := &testpb.StreamingOutputCallRequest{Payload: payload}
	for range messages {
		request.ResponseParameters = append(request.ResponseParameters, &testpb.ResponseParameters{Size: 31415})
	}
	description := &grpc.StreamDesc{StreamName: "Sleep", ServerStreams: true}
	stream, err := to.connection.NewStream(ctx, description, "/natsgateway.interop.v1.Variants/Sleep")
	if err != nil {
		return name, nil, err
	}
	// The status of a stream that has ended is what a receiver gets.
	if err := stream.SendMsg(request); err != nil && err != io.EOF {
		return name, nil, err
	}
	receive := func() error { return stream.RecvMsg(&testpb.StreamingOutputCallResponse{}) }
	err = stream.CloseSend()
	for range messages {
		err = errors.Join(err, receive())
	}
	return name, receive, err
}

// Waits until the service says this of a sleep.
func became(ctx context.Context, to target, name, wanted string) error {
	var state wrapperspb.StringValue
	for {
		err := to.connection.Invoke(ctx, "/natsgateway.interop.v1.Variants/GetSleep", wrapperspb.String(name), &state)
		if err == nil && state.GetValue() == wanted {
			return nil
		}
		if err != nil && status.Code(err) != codes.NotFound {
			return fmt.Errorf("GetSleep: %w; before it the sleep was %q, not %q", err, state.GetValue(), wanted)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func main() {
	address := flag.String("address", "127.0.0.1:50051", "the gateway")
	flag.Parse()
	connection, err := grpc.NewClient(*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	to, failed := target{connection, testpb.NewTestServiceClient(connection)}, 0
	for _, test := range []struct {
		name string
		run  func(context.Context, target) error
	}{
		{"contract", contract},
		{"unimplemented_method", unimplementedMethod},
		{"status_code_and_message", statusCodeAndMessage},
		{"cancel_after_begin", cancelAfterBegin},
		{"cancel_after_first_response", cancelAfterFirstResponse},
		{"custom_metadata", customMetadata},
		{"timeout_on_sleeping_server", timeoutOnSleepingServer},
	} {
		ctx, done := context.WithTimeout(context.Background(), limit)
		if err := test.run(ctx, to); err != nil {
			fmt.Printf("FAILED   %s (our client): %v\n", test.name, err)
			failed++
		} else {
			fmt.Printf("ok       %s (our client)\n", test.name)
		}
		done()
	}
	if failed > 0 {
		os.Exit(1)
	}
}
