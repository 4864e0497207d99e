// Greets visitors.
package main

import "wattle"

// The names of the ports, which the topology connects to topics.
const greeted wattle.Port = "greeted"

// What the topology may tell this plugin, in `config:`. A mistyped name is refused before anything runs.
type settings struct {
	// What a greeting begins with.
	Word string `default:"Hello"`
}

type visit struct {
	Name string `json:"name"`
}

type greeting struct {
	Text string `json:"text"`
}

func init() { wattle.Handle(handle, greeted) }

func main() {}

// handle is called for each event. Outputs go to the topics that the topology connects to the ports; an error
// sends the event to the dead letters.
func handle(event *wattle.Event, out *wattle.Outputs) error {
	config, err := wattle.Config[settings]()
	if err != nil {
		return err
	}
	var v visit
	if err := event.JSON(&v); err != nil {
		return err
	}
	return out.JSON(greeted, greet(v, config.Word))
}

func greet(v visit, word string) greeting {
	return greeting{word + ", " + v.Name + "!"}
}
