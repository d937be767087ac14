// The greeter as a NATS micro service: go run service.go [NATS_URL].
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

func sayHello(request micro.Request) {
	var asked struct{ Name string }
	if err := json.Unmarshal(request.Data(), &asked); err != nil || asked.Name == "" {
		_ = request.Error("400", "name: must not be empty", nil)
		return
	}
	_ = request.RespondJSON(map[string]string{"text": "hello " + asked.Name})
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
	service, err := micro.AddService(client, micro.Config{Name: "greeter", Version: "1.0.0", QueueGroup: "greeter"})
	if err != nil {
		log.Fatal(err)
	}
	if err := service.AddEndpoint("say_hello", micro.HandlerFunc(sayHello), micro.WithEndpointSubject("say_hello")); err != nil {
		log.Fatal(err)
	}
	fmt.Println("greeter: answers on say_hello")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	<-stop
}
