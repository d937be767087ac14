package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// As in grpc-go's case custom_metadata.
const (
	initialKey    = "x-grpc-test-echo-initial"
	initialValue  = "test_initial_metadata_value"
	trailingKey   = "x-grpc-test-echo-trailing-bin"
	trailingValue = "\x0a\x0b\x0a\x0b\x0a\x0b"
)

// Metadata comes back at the beginning and behind a call, a stream, a stream without messages, and an error. The trailing
// one has two values, of which one is not text.
func customMetadata(ctx context.Context, to target) error {
	trailing := []string{trailingValue, "\x00\xff"}
	for _, value := range trailing {
		ctx = metadata.AppendToOutgoingContext(ctx, trailingKey, value)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, initialKey, initialValue)
	var header, trailer metadata.MD
	request := &testpb.SimpleRequest{ResponseSize: 1, Payload: &testpb.Payload{Body: make([]byte, 1)}}
	if _, err := to.tests.UnaryCall(ctx, request, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		return fmt.Errorf("UnaryCall: %w", err)
	}
	if err := echoed("UnaryCall", header, trailer, trailing); err != nil {
		return err
	}
	for _, sizes := range [][]int32{{1, 31415}, {}} {
		header, trailer, err := streamed(ctx, to, sizes)
		if err != nil {
			return fmt.Errorf("StreamingOutputCall of %d messages: %w", len(sizes), err)
		}
		if err := echoed(fmt.Sprintf("StreamingOutputCall of %d messages", len(sizes)), header, trailer, trailing); err != nil {
			return err
		}
	}
	trailer = nil
	request.ResponseStatus = &testpb.EchoStatus{Code: int32(codes.Aborted), Message: "so"}
	_, err := to.tests.UnaryCall(ctx, request, grpc.Trailer(&trailer))
	if err := same("UnaryCall", err, status.Error(codes.Aborted, "so")); err != nil {
		return err
	}
	if !slices.Equal(trailer.Get(trailingKey), trailing) {
		return fmt.Errorf("the trailers of an error are %v", trailer)
	}
	return nil
}

// Reads a stream of messages of these sizes to its end.
func streamed(ctx context.Context, to target, sizes []int32) (header, trailer metadata.MD, err error) {
	request := &testpb.StreamingOutputCallRequest{}
	for _, size := range sizes {
		request.ResponseParameters = append(request.ResponseParameters, &testpb.ResponseParameters{Size: size})
	}
	stream, err := to.tests.StreamingOutputCall(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	for range sizes {
		if _, err := stream.Recv(); err != nil {
			return nil, nil, err
		}
	}
	if _, err := stream.Recv(); err != io.EOF {
		return nil, nil, fmt.Errorf("it ended with %v", err)
	}
	header, err = stream.Header()
	return header, stream.Trailer(), err
}

// Whether the metadata came back, each in its place alone.
func echoed(call string, header, trailer metadata.MD, trailing []string) error {
	if !slices.Equal(header.Get(initialKey), []string{initialValue}) || len(header.Get(trailingKey)) > 0 {
		return fmt.Errorf("%s: the initial metadata is %v", call, header)
	}
	if !slices.Equal(trailer.Get(trailingKey), trailing) || len(trailer.Get(initialKey)) > 0 {
		return fmt.Errorf("%s: the trailers are %v", call, trailer)
	}
	return nil
}
