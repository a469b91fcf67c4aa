// Compares the descriptor of proto/runtime.proto with the one k8s.io/cri-api was generated from: each service, method,
// message, field and enum value, both ways. RUNTIME_DESCRIPTOR names the descriptor set that protoc wrote.
package proto

import (
	"fmt"
	"os"
	"sort"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// facts describes everything that matters on the wire or to a generator as one line a thing, keyed by its full name.
type facts map[string]string

func (f facts) enum(e protoreflect.EnumDescriptor) {
	f[string(e.FullName())] = "enum"
	for i := 0; i < e.Values().Len(); i++ {
		v := e.Values().Get(i)
		f[fmt.Sprintf("%s value %s", e.FullName(), v.Name())] = fmt.Sprintf("number %d", v.Number())
	}
}

func (f facts) message(m protoreflect.MessageDescriptor) {
	f[string(m.FullName())] = fmt.Sprintf("message, map entry %v", m.IsMapEntry())
	for i := 0; i < m.Fields().Len(); i++ {
		d := m.Fields().Get(i)
		kind := d.Kind().String()
		switch {
		case d.Message() != nil:
			kind += " " + string(d.Message().FullName())
		case d.Enum() != nil:
			kind += " " + string(d.Enum().FullName())
		}
		oneof := ""
		if o := d.ContainingOneof(); o != nil {
			oneof = string(o.Name())
		}
		f[fmt.Sprintf("%s field %s", m.FullName(), d.Name())] = fmt.Sprintf(
			"number %d, %s, %s, map %v, packed %v, presence %v, oneof %q, json %s, deprecated %v",
			d.Number(), kind, d.Cardinality(), d.IsMap(), d.IsPacked(), d.HasPresence(), oneof, d.JSONName(),
			d.Options().(*descriptorpb.FieldOptions).GetDeprecated())
	}
	for i := 0; i < m.Messages().Len(); i++ {
		f.message(m.Messages().Get(i))
	}
	for i := 0; i < m.Enums().Len(); i++ {
		f.enum(m.Enums().Get(i))
	}
}

func factsOf(file protoreflect.FileDescriptor) facts {
	f := facts{"package": string(file.Package()), "syntax": file.Syntax().String()}
	for i := 0; i < file.Enums().Len(); i++ {
		f.enum(file.Enums().Get(i))
	}
	for i := 0; i < file.Messages().Len(); i++ {
		f.message(file.Messages().Get(i))
	}
	for i := 0; i < file.Services().Len(); i++ {
		s := file.Services().Get(i)
		f[string(s.FullName())] = "service"
		for k := 0; k < s.Methods().Len(); k++ {
			m := s.Methods().Get(k)
			f[fmt.Sprintf("%s method %s", s.FullName(), m.Name())] = fmt.Sprintf(
				"%s (stream %v) returns %s (stream %v)", m.Input().FullName(), m.IsStreamingClient(),
				m.Output().FullName(), m.IsStreamingServer())
		}
	}
	return f
}

func differences(ours, theirs facts) []string {
	var d []string
	for k, v := range theirs {
		if o, ok := ours[k]; !ok {
			d = append(d, fmt.Sprintf("missing: %s: %s", k, v))
		} else if o != v {
			d = append(d, fmt.Sprintf("different: %s: ours %s; theirs %s", k, o, v))
		}
	}
	for k, v := range ours {
		if _, ok := theirs[k]; !ok {
			d = append(d, fmt.Sprintf("only ours: %s: %s", k, v))
		}
	}
	sort.Strings(d)
	return d
}

func ourSet(t *testing.T) *descriptorpb.FileDescriptorSet {
	t.Helper()
	path := os.Getenv("RUNTIME_DESCRIPTOR")
	if path == "" {
		t.Fatal("RUNTIME_DESCRIPTOR is not set: run this through meson test")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		t.Fatal(err)
	}
	if len(set.File) != 1 {
		t.Fatalf("the descriptor set has %d files, not 1", len(set.File))
	}
	return set
}

func ourFile(t *testing.T, p *descriptorpb.FileDescriptorProto) protoreflect.FileDescriptor {
	t.Helper()
	file, err := protodesc.NewFile(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func theirFile() protoreflect.FileDescriptor {
	return (&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().ParentFile()
}

func TestEqualsModule(t *testing.T) {
	theirs := factsOf(theirFile())
	ours := factsOf(ourFile(t, ourSet(t).File[0]))
	for _, d := range differences(ours, theirs) {
		t.Error(d)
	}
	methods := 0
	services := theirFile().Services()
	for i := 0; i < services.Len(); i++ {
		methods += services.Get(i).Methods().Len()
	}
	t.Logf("%d facts compared, %d methods", len(theirs), methods)
}

// The comparison must see each kind of change, or a green run says nothing.
func TestComparisonNoticesChanges(t *testing.T) {
	theirs := factsOf(theirFile())
	message := func(f *descriptorpb.FileDescriptorProto, name string) *descriptorpb.DescriptorProto {
		for _, m := range f.MessageType {
			if m.GetName() == name {
				return m
			}
		}
		t.Fatalf("no message %s", name)
		return nil
	}
	for name, change := range map[string]func(f *descriptorpb.FileDescriptorProto){
		"field number": func(f *descriptorpb.FileDescriptorProto) {
			message(f, "VersionRequest").Field[0].Number = proto.Int32(2)
		},
		"field type": func(f *descriptorpb.FileDescriptorProto) {
			message(f, "StopContainerRequest").Field[1].Type = descriptorpb.FieldDescriptorProto_TYPE_UINT64.Enum()
		},
		"field label": func(f *descriptorpb.FileDescriptorProto) {
			message(f, "VersionRequest").Field[0].Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		},
		"field left out": func(f *descriptorpb.FileDescriptorProto) {
			m := message(f, "ContainerStatus")
			m.Field = m.Field[:len(m.Field)-1]
		},
		"field added": func(f *descriptorpb.FileDescriptorProto) {
			m := message(f, "RemoveImageResponse")
			m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
				Name: proto.String("more"), Number: proto.Int32(1),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				Type:  descriptorpb.FieldDescriptorProto_TYPE_BOOL.Enum(),
			})
		},
		"enum value": func(f *descriptorpb.FileDescriptorProto) {
			e := f.EnumType[len(f.EnumType)-1]
			e.Value[len(e.Value)-1].Number = proto.Int32(77)
		},
		"method left out": func(f *descriptorpb.FileDescriptorProto) {
			f.Service[0].Method = f.Service[0].Method[1:]
		},
		"method streams": func(f *descriptorpb.FileDescriptorProto) {
			f.Service[0].Method[0].ServerStreaming = proto.Bool(true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := proto.Clone(ourSet(t).File[0]).(*descriptorpb.FileDescriptorProto)
			change(p)
			if len(differences(factsOf(ourFile(t, p)), theirs)) == 0 {
				t.Error("went unnoticed")
			}
		})
	}
}
