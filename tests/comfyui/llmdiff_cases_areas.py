"""Areas. Where one prompt has an area, ComfyUI puts a copy of it into the lists of the others, with what CLIP
says replaced by what their own prompt around the area says; so must it be with the language model's.

The oracle of every case writes the copy down, prompt and all, and ComfyUI then makes none.
"""

import comfy.hooks
import torch
from comfy import samplers
from llmdiff_cases_model import NEGATIVE, PLAIN, POSITIVE, lora, tiny_control
from llmdiff_comfy import draw, noise, once
from llmdiff_scene import DROP, KEEP, MODEL, OTHER, SHORT, apply, clip, close, differ, encode

X = noise(side=16)
CORNER = (8, 8, 0, 0)
WHOLE = encode("the whole of it", conditioning=clip(6))


def placed(conditioning, area=CORNER, **options):
    """The same prompt for a part of the picture."""
    return [[tensor, {**known, "area": area, **options}] for tensor, known in conditioning]


def negative_alone(model, positive, negative):
    return draw(model, positive, negative, 0.0, x=X)


def case_an_area_is_drawn_as_a_picture_of_its_size():
    cut = draw(apply(), placed(POSITIVE), x=X)[..., :8, :8]
    close(cut, draw(apply(), POSITIVE, x=X[..., :8, :8]))


def case_the_negative_prompt_hears_its_own_in_an_area_of_the_positive():
    for adapter in (DROP, KEEP):
        said = encode(adapter=adapter, conditioning=clip(0))
        whole = encode("the whole of it", adapter, clip(6))
        for strength in (0.5, 1.0):
            applied = apply(adapter=adapter, strength=strength)
            for negative in (encode(SHORT, adapter, clip(1)), PLAIN):
                expected = negative_alone(applied, whole, negative + placed(negative))
                close(negative_alone(applied, whole + placed(said), negative), expected)


def case_the_positive_prompt_hears_its_own_in_an_area_of_the_negative():
    applied, positive = apply(), WHOLE + placed(POSITIVE, (8, 8, 8, 8))
    close(
        draw(applied, positive, PLAIN + placed(NEGATIVE), 1.0, x=X),
        draw(applied, positive + placed(WHOLE), PLAIN, 1.0, x=X),
    )
    plain = draw(applied, PLAIN, NEGATIVE + placed(POSITIVE), 1.0, x=X)
    close(plain, draw(MODEL, PLAIN + placed(PLAIN), x=X))


def case_of_several_prompts_around_an_area_the_smallest_is_heard():
    """ComfyUI's rule for CLIP. Areas that do not hold the whole of it do not count."""
    small, beside = encode("smaller", conditioning=clip(7)), encode("beside", conditioning=clip(8))
    negative = NEGATIVE + placed(small, (12, 12, 0, 0)) + placed(beside, (4, 4, 0, 0))
    applied = apply()
    expected = negative_alone(applied, WHOLE, negative + placed(small))
    close(negative_alone(applied, WHOLE + placed(POSITIVE), negative), expected)


def case_several_areas():
    """Copies are made of copies too."""
    other = encode("another place", conditioning=clip(7))
    inside = (4, 4, 2, 2)
    positive = WHOLE + placed(POSITIVE) + placed(other, inside) + placed(PLAIN, (8, 8, 8, 8))
    applied = apply()
    for negative in (NEGATIVE, PLAIN):
        written = negative + placed(negative) + placed(negative, inside) + placed(negative, (8, 8, 8, 8))
        close(negative_alone(applied, positive, negative), negative_alone(applied, positive, written))


def case_what_else_comes_with_a_copy():
    """ComfyUI copies ranges, strengths, masks, ControlNets and hooks along; that stays as it is."""
    half = torch.zeros(1, 16, 16)
    half[..., :10] = 1
    control, _ = tiny_control()
    sampling = {"start_percent": 0.0, "end_percent": 0.9, "strength": 0.7}
    hooks = {"hooks": comfy.hooks.create_hook_lora(lora(), 1.0, 0.0)}
    for options in (sampling, hooks, {"mask": half}, {"control": control}):
        positive, copied = WHOLE + placed(POSITIVE, **options), placed(NEGATIVE, **options)
        expected = negative_alone(apply(), WHOLE, NEGATIVE + copied)
        close(negative_alone(apply(), positive, NEGATIVE), expected)


def case_a_mask_that_sets_its_area():
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:12, 4:12] = 1
    bounds = {"mask": mask, "set_area_to_bounds": True}
    positive = WHOLE + [[POSITIVE[0][0], {**POSITIVE[0][1], **bounds}]]
    written = NEGATIVE + placed(NEGATIVE, (8, 8, 4, 4), mask=mask)
    close(negative_alone(apply(), positive, NEGATIVE), negative_alone(apply(), WHOLE, written))


class OneList(samplers.CFGGuider):
    """A guider of several lists, as those of more than one negative prompt are; it draws one of them."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006 as ComfyUI calls it
        asked = [self.conds[self.drawn]]
        return samplers.calc_cond_batch(self.inner_model, asked, x, timestep, model_options)[0]


def case_guiders_of_more_than_two_lists():
    lists = {"positive": WHOLE + placed(POSITIVE), "middle": encode("m", conditioning=clip(9))}
    lists |= {"negative": NEGATIVE + placed(PLAIN, (8, 8, 8, 8)), "empty": PLAIN}
    own = {"positive": WHOLE, "middle": lists["middle"], "negative": NEGATIVE, "empty": PLAIN}
    sigmas = torch.stack([MODEL.model.model_sampling.sigmas[500], torch.zeros(())])
    for name, given in lists.items():
        written = [part for area in (CORNER, (8, 8, 8, 8)) for part in placed(own[name], area)]
        missing = [entry for entry in written if entry[1]["area"] not in areas(given)]
        guider = OneList(apply())
        guider.drawn = name
        guider.inner_set_conds(lists)
        found = guider.sample(X, torch.zeros_like(X), samplers.KSAMPLER(once), sigmas, seed=0)
        expected = given + missing
        model = apply() if heard(expected) else MODEL
        close(found, draw(model, expected, x=X))


def areas(conditioning):
    return [options.get("area") for _, options in conditioning]


def heard(conditioning):
    return any("llmdiff" in options for _, options in conditioning)


def case_two_adapters_and_areas():
    def say(text, seed):
        return encode(text, OTHER, encode(text, conditioning=clip(seed)))

    whole, part, negative = say("the whole of it", 6), say("a part", 0), say(SHORT, 1)
    one_only = encode(SHORT, conditioning=clip(1))
    stacked = apply(apply(strength=0.5), OTHER, 0.5)
    for other in (negative, one_only):
        expected = negative_alone(stacked, whole, other + placed(other))
        close(negative_alone(stacked, whole + placed(part), other), expected)


def case_guidance_in_an_area():
    applied, given = apply(), WHOLE + placed(POSITIVE)
    plus, minus = draw(applied, given, x=X), negative_alone(applied, WHOLE, NEGATIVE + placed(NEGATIVE))
    close(draw(applied, given, NEGATIVE, 7.0, x=X), minus + 7.0 * (plus - minus), 1e-3)
    differ(draw(applied, given, NEGATIVE, 7.0, x=X), draw(applied, given, PLAIN, 7.0, x=X))
