// The scenario of all example clients: sign in, create a workflow, start a run, watch it, tail its logs, cancel it.
package main

//go:generate buf generate

import (
	"context"
	"fmt"
	"log"
	"os"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	pb "towline.dev/clients/go/gen/towline/v1"
)

// Who gets which step is nothing to a reader of the transcript.
var handouts = map[pb.Event_Type]bool{
	pb.Event_STEP_READY: true, pb.Event_STEP_OFFERED: true, pb.Event_STEP_OFFER_EXPIRED: true,
}

func main() {
	client, err := dial(os.Getenv("TOWLINE_SERVER"))
	if err != nil {
		log.Fatal(err)
	}
	defer client.conn.Close()
	if err := scenario(context.Background(), client, os.Getenv("EMAIL"), os.Getenv("PASSWORD")); err != nil {
		log.Fatal(err)
	}
}

func scenario(ctx context.Context, client *towline, email, password string) error {
	if err := signIn(ctx, client, email, password); err != nil {
		return err
	}
	misnamed := &pb.Node{Id: "no spaces", Type: "DELAY", Config: object(map[string]any{"seconds": 1})}
	_, err := create(ctx, client, &pb.Dag{Nodes: []*pb.Node{misnamed}})
	explain(err)
	workflow, err := create(ctx, client, dag())
	if err != nil {
		return err
	}
	fmt.Printf("created %s, version %d, nodes %d\n", workflow.Name, workflow.CurrentVersion, len(workflow.Dag.Nodes))
	run, err := start(ctx, client, workflow.Id)
	if err != nil {
		return err
	}
	cursor, err := client.watch(ctx, run.Id, "", func(event *pb.Event) bool {
		show(event)
		return !(event.Type == pb.Event_STEP_STARTED && event.NodeId == "wait")
	})
	if err != nil {
		return err
	}
	if err := client.tail(ctx, run.Id, "greet", func(line *pb.LogLine) bool {
		fmt.Printf("log %s %s: %s\n", line.NodeId, line.Stream, line.Text)
		return line.Text != "goodbye"
	}); err != nil {
		return err
	}
	return cancel(ctx, client, run.Id, cursor)
}

func signIn(ctx context.Context, client *towline, email, password string) error {
	ctx, done := client.call(ctx)
	defer done()
	login, err := client.auth.Login(ctx, &pb.LoginRequest{Email: email, Password: password})
	if err != nil {
		return err
	}
	client.token = login.AccessToken
	fmt.Println("signed in as", login.User.Email)
	return nil
}

func dag() *pb.Dag {
	return &pb.Dag{
		Nodes: []*pb.Node{
			{Id: "greet", Type: "SHELL", Config: object(map[string]any{"command": "echo hello; echo goodbye"})},
			{Id: "wait", Type: "DELAY", Config: object(map[string]any{"seconds": 600}), TimeoutMs: proto.Int64(900_000)},
		},
		Edges: []*pb.Edge{{Source: "greet", Target: "wait"}},
	}
}

func create(ctx context.Context, client *towline, dag *pb.Dag) (*pb.Workflow, error) {
	ctx, done := client.call(ctx)
	defer done()
	created, err := client.workflows.CreateWorkflow(ctx, &pb.CreateWorkflowRequest{Name: "example", Dag: dag})
	return created.GetWorkflow(), err
}

// explain shows what an error says beyond its message: a reason for programs, and each field that is wrong.
func explain(err error) {
	refused := status.Convert(err)
	for _, detail := range refused.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Printf("refused: %s, reason %s\n", codeName(refused.Code()), detail.Reason)
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				fmt.Println("wrong field:", violation.Field)
			}
		}
	}
}

// codeName spells a code as the other languages do.
func codeName(code codes.Code) string {
	return map[codes.Code]string{codes.InvalidArgument: "INVALID_ARGUMENT", codes.NotFound: "NOT_FOUND"}[code]
}

func start(ctx context.Context, client *towline, workflowID string) (*pb.Run, error) {
	ctx, done := client.call(ctx)
	defer done()
	// The key makes the call safe to repeat: the same key starts the run only once.
	request := &pb.StartRunRequest{WorkflowId: workflowID, RequestId: workflowID + "-1"}
	first, err := client.runs.StartRun(ctx, request)
	if err != nil {
		return nil, err
	}
	again, err := client.runs.StartRun(ctx, request)
	if err != nil {
		return nil, err
	}
	fmt.Println("started once:", first.Run.Id == again.Run.Id)
	return first.Run, nil
}

func cancel(ctx context.Context, client *towline, runID, cursor string) error {
	call, done := client.call(ctx)
	defer done()
	if _, err := client.runs.CancelRun(call, &pb.CancelRunRequest{RunId: runID}); err != nil {
		return err
	}
	if _, err := client.watch(ctx, runID, cursor, func(event *pb.Event) bool {
		show(event)
		return true
	}); err != nil {
		return err
	}
	call, done = client.call(ctx)
	defer done()
	ended, err := client.runs.GetRun(call, &pb.GetRunRequest{RunId: runID})
	if err != nil {
		return err
	}
	fmt.Println("ended", ended.Run.State)
	return nil
}

func show(event *pb.Event) {
	if handouts[event.Type] {
		return
	}
	if event.NodeId == "" {
		fmt.Println("event", event.Type)
		return
	}
	fmt.Println("event", event.Type, event.NodeId)
}

func object(fields map[string]any) *structpb.Struct {
	made, err := structpb.NewStruct(fields)
	if err != nil {
		panic(err) // only for what is no JSON
	}
	return made
}
