// The checksum of a text: JSON on standard input, the result on file descriptor 3, the log on standard output.
package main

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"os"
)

var algorithms = map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

type request struct {
	Config struct {
		Text      string `json:"text"`
		Algorithm string `json:"algorithm"`
	} `json:"config"`
	Context struct {
		Attempt int `json:"attempt"`
	} `json:"context"`
}

func main() {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fail("INVALID_INPUT", err.Error())
	}
	name := asked.Config.Algorithm
	if name == "" {
		name = "sha256"
	}
	begin, known := algorithms[name]
	if !known {
		fail("UNKNOWN_ALGORITHM", fmt.Sprintf("%q is none of sha1, sha256, sha512", name))
	}
	fmt.Printf("%d bytes, attempt %d\n", len(asked.Config.Text), asked.Context.Attempt)
	sum := begin()
	sum.Write([]byte(asked.Config.Text))
	answer(map[string]string{"algorithm": name, "hex": hex.EncodeToString(sum.Sum(nil))})
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
