// Package tokenizer turns text into token ids and back, with the same ids and offsets as
// HuggingFace's tokenizers library:
//
//	tok, err := tokenizer.Load("path/to/model")
//	enc, err := tok.Encode("Hello, world!", tokenizer.Options{AddSpecial: true, MaxLength: 512})
//	fmt.Println(enc.IDs, tok.Decode(enc.IDs, true))
//
// It reads tokenizer.json, vocab.txt, SentencePiece's and LLaMA-3's tokenizer.model, and the
// metadata of GGUF files, and knows the tokenizers of BERT and DistilBERT (WordPiece), LLaMA 1
// and 2 and Mistral (BPE over characters, with bytes as fallback), and LLaMA-3, SmolLM2, GPT-2, RoBERTa
// and Qwen2 (BPE over bytes). What a file asks for and the package does not do is an error when
// it is loaded, never a different result.
//
// With a tokenizer_config.json beside a tokenizer.json the result is that of transformers'
// AutoTokenizer, which puts much of the former over the latter, by its class: BERT's
// do_lower_case, strip_accents and tokenize_chinese_chars, LLaMA's add_bos_token, add_eos_token
// and add_prefix_space, new special tokens, and that decoded text is tidied up (configure.go).
// Classes that it does not know count as PreTrainedTokenizerFast. Two things differ. Without a
// tokenizer_config.json a tokenizer.json is taken at its word, though AutoTokenizer finds a class
// by config.json then too. And the text of a Stream is not tidied up: what was returned cannot be
// taken back.
//
// A text passes four stages. Added tokens, such as [SEP] or <|eot_id|>, are found in it and set
// apart (added.go). What lies between is normalized (normalize.go) and cut into words
// (pretokenize.go, words.go). The model turns words into tokens (wordpiece.go, bpe.go). The
// template puts special tokens around them (postprocess.go). Through all this a text carries
// along where its characters came from (text.go), for the offsets.
//
// The Unicode properties are the library's, frozen in unicode_tables.go. The template with its
// pieces, the decoder interface, and the decoders WordPiece, Metaspace, Fuse and Sequence are those of
// github.com/sugarme/tokenizer. The rest of it is not used: its normalizers, pre-tokenizers, models
// and search for added tokens give other ids, its decoders ByteLevel, ByteFallback and Strip other
// text, or a panic, on some tokens, and its Replace is slow.
//
// # Terms
//
//   - the library: HuggingFace's tokenizers, whose ids, offsets and text are the measure
//   - definition: the parts of a tokenizer as a tokenizer.json writes them, whatever file they came from
//   - added token: one that is found in a text as a whole, before the model sees it
//   - special token: an added token that Decode can skip; its role may be padding, end of text and so on
//   - class: the Python class of transformers that a folder is for, which changes some of its definition
//   - normalizer: rewrites a text, by lowercasing for example; it keeps spans
//   - pre-tokenizer: cuts a text into words; a word pattern is one that works as a regular expression
//   - merge: two tokens, side by side, that become one; its rank is its place in the list of merges
//   - byte level: a model whose symbols are bytes, which its vocabulary writes as printable characters
//   - byte fallback: tokens <0x00> to <0xFF>, for characters that the vocabulary has not
//   - template: the special tokens around one or two texts
//   - span: the range of the original text that a character or token comes from
//   - piece: of a word so long that it is encoded a part at a time (bpepieces.go)
//   - stretch: of a text without pre-tokenizer, which is normalized a part at a time where that is the same (stretch.go)
//   - margin: the white space at the ends of a token, which some tokenizers leave out of its offsets
package tokenizer
