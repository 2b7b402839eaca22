"""GSM-style word problems with worked solutions from reasoning-gym, split into train and test by template.

Source: reasoning-gym's gsm_symbolic (Apache-2.0), after GSM-Symbolic (arXiv 2410.05229). A template is one story with
its numbers and names left open; no story of the test part is ever seen in training.
"""

import random
from collections.abc import Iterator

from rlpretrain.data.documents import Document
from rlpretrain.errors import UserError

TEST_EVERY = 5  # of the templates, in their order, the share 1/5 is the test part
FORMS = ("document", "sft", "problem")
INSTRUCTION = " Give the result as your final answer. Do not include units."  # reasoning-gym's, no part of the story
PROMPT = "Question: {question}\nAnswer:"


def generate(
    *, documents: int, split: str, seed: int, form: str = "document", source: str = "gsm_symbolic"
) -> Iterator[Document]:
    """``documents`` problems; ``form``: document (text), sft (prompt, and the solution as a thought) or problem (prompt, answer)."""
    import reasoning_gym

    if split not in ("train", "test") or form not in FORMS:
        raise UserError(
            f"gsm_symbolic: split '{split}' must be train or test, and form '{form}' one of {', '.join(FORMS)}"
        )
    # Items are drawn over all templates: enough are drawn that the smaller part suffices.
    drawn = documents * (2 * TEST_EVERY if split == "test" else 2) + 100
    # A seed of its own for every form: the problems of post-training are not those of the corpus. Hashed, because
    # reasoning-gym's item i of seed s has the numbers of item i - 1 of seed s + 1.
    own_seed = random.Random(f"{form}/{split}/{seed}").getrandbits(31)
    dataset = reasoning_gym.create_dataset("gsm_symbolic", size=drawn, seed=own_seed)
    made = 0
    for index in range(drawn):
        if made == documents:
            break
        item = dataset[index]
        template = dataset.task_indices[index]
        if (template % TEST_EVERY == 0) != (split == "test"):
            continue
        made += 1
        prompt = PROMPT.format(question=" ".join(item["question"].removesuffix(INSTRUCTION).split()))
        answer = str(item["answer"])
        # Some solutions end in "#### 36.0" where the answer is 36.
        steps, mark, _ = item["metadata"]["answer_cot"].rpartition("####")
        assert mark, "a worked solution ends in #### and the answer"
        if form == "document":
            yield Document(f"{prompt} {steps.strip()}\n#### {answer}", "", "", source)
        elif form == "sft":
            yield Document(f"<think> {steps.strip()}</think>\n#### {answer}", prompt, "", source)
        else:
            yield Document("", prompt, answer, source)
    assert made == documents, "more items than were drawn are needed"


GENERATORS = {"gsm_symbolic": generate}
