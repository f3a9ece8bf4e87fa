package main

// release is gopeft's version. It is written here alone; a test holds CHANGELOG.md to it.
const release = "0.1.0"

// builtFrom is the commit that the Makefile built, "" for a plain go build.
var builtFrom string

// version is the release and, where known, the commit: "0.1.0 (e6c2a98)".
func version() string {
	if builtFrom == "" {
		return release
	}
	return release + " (" + builtFrom + ")"
}
