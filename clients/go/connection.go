package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "towline.dev/clients/go/gen/towline/v1"
)

// What may be sent again after UNAVAILABLE, and how. CreateWorkflow is not among it: it would create two.
const serviceConfig = `{"methodConfig": [{
	"name": [{"service": "towline.v1.AuthService"}, {"service": "towline.v1.RunService"}],
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

const (
	deadline   = 10 * time.Second
	resumeWait = 100 * time.Millisecond
)

// towline is a connection to a control plane in the name of one user.
type towline struct {
	conn      *grpc.ClientConn
	token     string
	auth      pb.AuthServiceClient
	workflows pb.WorkflowServiceClient
	runs      pb.RunServiceClient
}

// dial connects on first use, and anew whenever the control plane lets go of a connection.
func dial(server string) (*towline, error) {
	conn, err := grpc.NewClient(server,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		// The control plane allows a ping every 10 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32<<20)),
	)
	if err != nil {
		return nil, err
	}
	return &towline{
		conn:      conn,
		auth:      pb.NewAuthServiceClient(conn),
		workflows: pb.NewWorkflowServiceClient(conn),
		runs:      pb.NewRunServiceClient(conn),
	}, nil
}

// call returns the context of a unary call: with the credential, and a deadline.
func (t *towline) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.signed(ctx), deadline)
}

func (t *towline) signed(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+t.token)
}

// watch shows each event behind a cursor once and in order, whatever becomes of connections, until the run has ended
// or see has enough. It returns the cursor to go on from.
func (t *towline) watch(ctx context.Context, runID, cursor string, see func(*pb.Event) bool) (string, error) {
	ctx, cancel := context.WithCancel(t.signed(ctx))
	defer cancel()
	for {
		err := follow(func() (grpc.ServerStreamingClient[pb.WatchRunResponse], error) {
			return t.runs.WatchRun(ctx, &pb.WatchRunRequest{RunId: runID, Cursor: cursor})
		}, func(answer *pb.WatchRunResponse) bool {
			cursor = answer.Cursor
			return see(answer.Event)
		})
		if status.Code(err) != codes.Unavailable {
			return cursor, err
		}
		time.Sleep(resumeWait)
	}
}

// tail shows each log line of a node once and in order, until the run has ended or see has enough.
func (t *towline) tail(ctx context.Context, runID, nodeID string, see func(*pb.LogLine) bool) error {
	ctx, cancel := context.WithCancel(t.signed(ctx))
	defer cancel()
	cursor := ""
	for {
		err := follow(func() (grpc.ServerStreamingClient[pb.TailLogsResponse], error) {
			return t.runs.TailLogs(ctx, &pb.TailLogsRequest{RunId: runID, NodeId: nodeID, Follow: true, Cursor: cursor})
		}, func(answer *pb.TailLogsResponse) bool {
			batch := answer.Batch
			if batch == nil {
				batch = []*pb.TailLogsResponse{answer}
			}
			for _, each := range batch {
				cursor = each.Cursor
				if each.Line != nil && !see(each.Line) {
					return false
				}
			}
			return true
		})
		if status.Code(err) != codes.Unavailable {
			return err
		}
		time.Sleep(resumeWait)
	}
}

// follow opens a stream and takes its answers until it ends, breaks, or take has enough.
func follow[T any](open func() (grpc.ServerStreamingClient[T], error), take func(*T) bool) error {
	stream, err := open()
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !take(answer) {
			return nil
		}
	}
}
