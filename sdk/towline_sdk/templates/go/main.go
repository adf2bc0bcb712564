// Greets somebody. Standard input is JSON, file descriptor 3 takes the result, what is printed is the log.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type request struct {
	Config struct {
		Who string `json:"who"`
	} `json:"config"`
}

func main() {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fail("INVALID_INPUT", err.Error())
	}
	fmt.Println("greeting", asked.Config.Who)
	if asked.Config.Who == "nobody" {
		fail("NOBODY_THERE", "there is nobody to greet")
	}
	answer(map[string]string{"greeting": "Hello, " + asked.Config.Who + "!"})
}

func answer(result any) {
	if err := json.NewEncoder(os.NewFile(3, "result")).Encode(result); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fail(code, message string) {
	answer(map[string]any{"error": map[string]string{"class": "PERMANENT", "code": code, "message": message}})
	os.Exit(1)
}
