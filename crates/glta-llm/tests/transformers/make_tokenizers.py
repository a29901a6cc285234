"""Token ids of 1,000 generated prompts each, by transformers' AutoTokenizer.

    pip install transformers tokenizers safetensors numpy
    python make_tokenizers.py

Writes a folder for each kind of tokenizer, with the files that AutoTokenizer reads, the
fragments that prompts are put together from (prompts.json) and the ids (prompts.safetensors).
"""

import json
import pathlib
import shutil

import numpy as np
import tokenizers
import transformers
from safetensors.numpy import save_file
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
PROMPTS, FRAGMENTS = 1000, 12

CORPUS = """
The customer has bought green tea, an oak table with four legs and two mugs; next to them, a lamp.
You recommend items. Select, from the given items, those that the user interacted with.
Summarise the items that this person chose in 5 short tags. Items: dark comedy, film noir, drama.
User token: Item tokens: User tags: Potential interest: Shuffled descriptions: the 39 steps (1935)
It's what they've said: we're not done, I'll go, he'd stay, don't. Ünlü çay, café au lait, naïve.
""" * 3
FRAGMENT_LIST = [
    " ", "  ", "    ", "\n", "\n\n", "\t", " the", "the", " customer", "Green tea", " tea", ";",
    ", ", ". ", "!", "?", "'s", "'LL", "It's", " 1999", "12345", " 7", "-", "_", "(", ")", "[INST]",
    " [/INST]", "<<SYS>>\n", "\n<</SYS>>\n\n", "User token: ", "Item tokens:", "naïve", " café",
    "Ünlü", "çay", "日本語", " 中文", "🍵", "👩‍🔬", "é", "e\u0301", "\u00a0", "\u200b", "▁", "▁the",
    "<s>", "</s>", "<unk>", "<0x41>", "<|im_start|>", "<|im_end|>", " <|im_end|> ", "{", "}", "\\",
    "a", "A", "Zz", "http://a.b/c?d=1", "\r\n", "...", " — ", "µ", "ﬁ", "½",
]
SPECIAL = ["<unk>", "<s>", "</s>"]
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


MESSAGES = [
    dict(role="system", content="Be brief. "),
    dict(role="user", content=" Which tea?\n"),
    dict(role="assistant", content="<think>\nhm\n</think>\n\nGreen."),
    dict(role="user", content="Why {ITEMS}?"),
]
# What templates on the hub use: slices, tests, namespaces, methods, macros, control of spaces.
CHATS = {
    "inst": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = \
messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}
{% for message in rest %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles must alternate') }}
    {% endif %}
    {% if loop.index0 == 0 and system != false %}
        {% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
    {% else %}
        {% set content = message['content'] %}
    {% endif %}
    {%- if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {%- else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}
{% endfor %}
""",
    "headers": """{{- bos_token }}{% for message in messages %}{% set content = '<|start|>' + \
message['role'] + '<|end|>\\n\\n' + message['content'] | trim + '<|eot|>' %}{{ content }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\\n\\n' }}{% endif %}""",
    "lines": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% else %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "thinking": """{%- macro turn(role, text) %}{{ '<|im_start|>' ~ role ~ '\\n' ~ text ~ \
'<|im_end|>\\n' }}{% endmacro %}
{%- if tools %}
    {{- 'tools' }}
{%- elif messages[0].role == 'system' %}
    {{- turn('system', messages[0].content) }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, seen=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.seen and message.role == "user" and message.content is string %}
        {%- set ns.last = index %}
        {%- set ns.seen = true %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- turn(message.role, message.content) }}
    {%- elif message.role == 'assistant' %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last %}{{- 'late' }}{%- endif %}
        {{- turn('assistant', content) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "dated": """{% if strftime_now is defined and false %}{{ strftime_now('%d') }}{% endif %}
{% for m in messages if m.role != 'system' -%}
{{ m.role.upper() }}: {{ m['content'].rstrip().replace('tea', 'TEA') }}{{ "\\n" if not loop.last }}
{%- if m.role == 'assistant' %}{% continue %}{% endif %}
{%- generation %}{% endgeneration %}
{%- endfor %}""".replace("{%- generation %}{% endgeneration %}", ""),
}


def splitmix(x):
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def prompt(n):
    """Fragments picked by number, as in ../text.rs."""
    length = splitmix(n) % FRAGMENTS + 1
    pick = lambda i: FRAGMENT_LIST[splitmix(n * 100 + i + 1) % len(FRAGMENT_LIST)]
    return "".join(pick(i) for i in range(length))


def added(*contents, start=0, **flags):
    flags = dict(
        lstrip=False, normalized=False, rstrip=False, single_word=False, special=True, **flags
    )
    return {str(start + i): dict(content=content, **flags) for i, content in enumerate(contents)}


def sentence_piece():
    """BPE with byte fallback over whole texts, without a normalizer yet."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        CORPUS.split("\n"), trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL + bytes_)
    )
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def llama2(legacy):
    tokenizer = sentence_piece()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    config = dict(
        tokenizer_class="LlamaTokenizer", legacy=legacy, bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", add_bos_token=True, add_eos_token=False,
        added_tokens_decoder=added(*SPECIAL),
    )
    return tokenizer, config


def mistral():
    tokenizer = sentence_piece()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    config = dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", added_tokens_decoder=added(*SPECIAL),
    )
    return tokenizer, config


def llama3():
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS.split("\n"), trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet)
    )
    tokenizer.decoder = decoders.ByteLevel()
    size = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", size)]
        ),
    ])
    # Two more only here, as in fine-tunes whose tokenizer.json was not saved again.
    config = dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="<|im_end|>",
        added_tokens_decoder=added("<s>", "</s>", "<|im_start|>", "<|im_end|>", start=size),
    )
    return tokenizer, config


def main():
    kinds = {
        "llama2": llama2(False), "llama2-legacy": llama2(True), "mistral": mistral(),
        "llama3": llama3(),
    }
    outputs = {}
    for name, (tokenizer, config) in kinds.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        saved = json.loads(tokenizer.to_str())
        (folder / "tokenizer.json").write_text(json.dumps(saved, ensure_ascii=False) + "\n")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        ids = [theirs(prompt(n))["input_ids"] for n in range(PROMPTS)]
        outputs[f"{name}.lengths"] = np.array([len(each) for each in ids], np.uint16)
        outputs[f"{name}.ids"] = np.concatenate(ids).astype(np.uint16)
        print(name, type(theirs).__name__, len(outputs[f"{name}.ids"]), "ids")
    save_file(outputs, HERE / "prompts.safetensors")
    chats = {
        name: dict(
            template=template,
            text=theirs.apply_chat_template(
                MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=True,
                enable_thinking=False,
            ),
        )
        for name, template in CHATS.items()
    }
    tokens = dict(bos_token=theirs.bos_token, eos_token=theirs.eos_token)
    described = dict(tokens=tokens, messages=MESSAGES, chats=chats)
    (HERE / "chats.json").write_text(json.dumps(described, ensure_ascii=False, indent=1) + "\n")
    header = dict(
        transformers=transformers.__version__, prompts=PROMPTS, length=FRAGMENTS,
        fragments=FRAGMENT_LIST,
    )
    (HERE / "prompts.json").write_text(json.dumps(header, ensure_ascii=False, indent=1) + "\n")


main()
