package chat_test

import (
	"fmt"

	"gopeft/model/chat"
)

func ExampleTemplate_Render() {
	t, err := chat.Parse("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := t.Render([]chat.Message{{Role: "user", Content: "Hello"}}, true)
	fmt.Println(text, err)
	// Output: <user>Hello<assistant> <nil>
}
