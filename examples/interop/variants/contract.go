package main

import (
	"context"
	"fmt"

	testpb "google.golang.org/grpc/interop/grpc_testing"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// What the gateway serves of grpc.testing is what grpc-go knows: messages, enums and rpcs may be missing; those that are
// there have the same names, numbers and types.
func contract(ctx context.Context, to target) error {
	known, set := map[string]string{}, &descriptorpb.FileDescriptorSet{}
	for _, file := range []protoreflect.FileDescriptor{
		testpb.File_grpc_testing_empty_proto, testpb.File_grpc_testing_messages_proto, testpb.File_grpc_testing_test_proto,
	} {
		describe(file, known)
		ours, err := served(ctx, to, file.Path())
		if err != nil {
			return fmt.Errorf("reflection of %s: %w", file.Path(), err)
		}
		set.File = append(set.File, ours)
	}
	// The files of the options are of no interest.
	files, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(set)
	if err != nil {
		return err
	}
	ours := map[string]string{}
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		describe(file, ours)
		return true
	})
	for name, text := range ours {
		if text != known[name] {
			return fmt.Errorf("%s is {%s}, and that of grpc-go {%s}", name, text, known[name])
		}
	}
	if len(ours) < 10 {
		return fmt.Errorf("the gateway serves only %d of grpc.testing's messages, enums and rpcs", len(ours))
	}
	return nil
}

// A file, as the gateway's reflection has it.
func served(ctx context.Context, to target, path string) (*descriptorpb.FileDescriptorProto, error) {
	stream, err := reflection.NewServerReflectionClient(to.connection).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	question := &reflection.ServerReflectionRequest_FileByFilename{FileByFilename: path}
	if err := stream.Send(&reflection.ServerReflectionRequest{MessageRequest: question}); err != nil {
		return nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	for _, bytes := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(bytes, file); err != nil || file.GetName() == path {
			return file, err
		}
	}
	return nil, fmt.Errorf("it is not there: %v", answer.GetErrorResponse())
}

// Adds what a file has, each with its names, numbers and types.
func describe(file protoreflect.FileDescriptor, to map[string]string) {
	for at := range file.Messages().Len() {
		message := file.Messages().Get(at)
		to[string(message.FullName())] = fields(message)
	}
	for at := range file.Enums().Len() {
		enum, text := file.Enums().Get(at), ""
		for at := range enum.Values().Len() {
			text += fmt.Sprintf("%s = %d; ", enum.Values().Get(at).Name(), enum.Values().Get(at).Number())
		}
		to[string(enum.FullName())] = text
	}
	for at := range file.Services().Len() {
		methods := file.Services().Get(at).Methods()
		for at := range methods.Len() {
			method := methods.Get(at)
			to[string(method.FullName())] = fmt.Sprintf(
				"stream %t %s returns stream %t %s",
				method.IsStreamingClient(), method.Input().FullName(), method.IsStreamingServer(), method.Output().FullName(),
			)
		}
	}
}

func fields(message protoreflect.MessageDescriptor) (text string) {
	for at := range message.Fields().Len() {
		field := message.Fields().Get(at)
		text += fmt.Sprintf("%v %v %s = %d", field.Cardinality(), field.Kind(), field.Name(), field.Number())
		switch {
		case field.IsMap():
			text += fmt.Sprintf(" (%v, %v)", field.MapKey().Kind(), field.MapValue().Kind())
		case field.Message() != nil:
			text += fmt.Sprintf(" (%s)", field.Message().FullName())
		case field.Enum() != nil:
			text += fmt.Sprintf(" (%s)", field.Enum().FullName())
		}
		text += "; "
	}
	return text
}
