# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tables
#
# From a file with words, dates and gaps to predictions for new rows: reading, training, what the columns
# are worth, several targets, cross-validation, an ensemble, calibration, saving. The file is about
# three cafés. It is made up, by a formula that stands below. So, unlike in life, we know what can be
# predicted at all, and how far each result is from that.
#
# Before: [05 Sweeps](05_sweeps.ipynb). Next: [07 As accurate as
# possible](07_as_accurate_as_possible.ipynb). It needs no data.

# %%
import csv
import datetime
import os
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

try:
    import funcnet as fn
except ImportError:  # on Colab, say
    # %pip install --quiet "funcnet[notebooks]"
    import funcnet as fn

import matplotlib.pyplot as plt
import numpy as np

# %matplotlib inline

# A small run, to see that everything works: FUNCNET_NOTEBOOK_FAST=1
FAST = os.environ.get("FUNCNET_NOTEBOOK_FAST") == "1"

# %% [markdown]
# ## 1 A file
#
# Each row is a day in one of three cafés, over three years. How many coffees and scoops of ice cream
# are sold depends on weekday, season, temperature and weather, and on the café; that the cakes are
# `sold_out` is an event of a probability that depends on them, too. The numbers have noise, of a
# standard deviation of 12 coffees and 20 scoops, or less where few are sold. In one row of twelve the
# thermometer was not read. The column `waiter` has nothing to do with anything.

# %%
rng = np.random.default_rng(7)
start = datetime.date(2022, 1, 1)
days = [start + datetime.timedelta(days=i) for i in range(1096) for _ in range(3)]
rows = len(days)
cafe = np.array(["station", "harbour", "park"] * 1096)
season = np.array([np.cos(2 * np.pi * (day.timetuple().tm_yday - 200) / 365) for day in days])
temperature = 11 + 10 * season + 3.5 * rng.normal(size=rows)
weather = rng.choice(["sun", "cloud", "rain"], size=rows, p=[0.45, 0.3, 0.25])
weather = np.where((temperature < 1) & (weather == "rain"), "snow", weather)
weekend = np.array([day.weekday() >= 5 for day in days])

outside = (cafe != "station") * weekend * (weather == "sun")
warmth = np.maximum(temperature - 12, 0)
coffee_mean = 150 + 60 * (cafe == "station") * ~weekend + 30 * outside - 2 * warmth
ice_mean = (4 + 8 * (cafe != "station")) * warmth * np.where(weather == "rain", 0.4, 1.0)
logit = -1.5 + 1.2 * weekend + 2.5 * outside + 0.08 * warmth - 1.0 * (weather == "rain")
probability = 1 / (1 + np.exp(-logit))

coffee = np.round(coffee_mean + 12 * rng.normal(size=rows)).astype(int)
ice_noise = np.minimum(20, 0.2 * ice_mean)
ice = np.round(np.maximum(ice_mean + ice_noise * rng.normal(size=rows), 0)).astype(int)
sold_out = np.where(rng.random(rows) < probability, "yes", "no")
part = rng.choice(["train", "val", "test"], size=rows, p=[0.6, 0.15, 0.25])

columns = {
    "date": [day.isoformat() for day in days],
    "cafe": cafe,
    "city": np.full(rows, "Kiel"),
    "weather": weather,
    "temperature": np.where(rng.random(rows) < 1 / 12, "", temperature.round(1).astype(str)),
    "waiter": rng.choice(["Ada", "Ben", "Cem", "Dora"], size=rows),
    "receipt": [f"R{i:05}-{rng.integers(36**4):x}" for i in range(rows)],
    "coffee": coffee,
    "ice": ice,
    "sold_out": sold_out,
    "part": part,
}
os.chdir(tempfile.mkdtemp())  # what this notebook writes goes there
path = Path("cafes.csv")
with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
print("".join(path.read_text().splitlines(keepends=True)[:6]))

# %% [markdown]
# ## 2 Reading it
#
# `load_table` reads the file and finds out what each column is. `split_by` names the column that says
# what a row is for; without it rows are shuffled. The two other targets must be dropped, or they
# would be used to predict the third, which nobody could do in the morning. What `load_table` decides by
# itself it says.


# %%
@contextmanager
def warnings_in_lines():
    """Print what is said of data in a line each, without the place in the code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", fn.DataWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print(message)


def load(target, drop):
    with warnings_in_lines():
        return fn.load_table(path, target, drop=drop, split_by="part")


cakes = load("sold_out", drop=["coffee", "ice"])
sizes = [len(split) for split in (cakes.y_train, cakes.y_val, cakes.y_test)]
print("rows to train, to validate and to test:", sizes)
for feature in cakes.encoding.features:
    print(f"{feature.name:12} {feature.kind:9} -> {', '.join(feature.names)}")

# %% [markdown]
# Two columns are left out: `city` is the same everywhere, and `receipt` is another word in every row. A
# date becomes a number and its cycles, as sine and cosine, of the week and of the year, since Sunday is
# close to Monday and December to January. A word becomes a number for each word that there is. The
# temperature keeps a place that says whether it is missing, and the median stands in its place.
#
# ## 3 Training and evaluating
#
# A recipe is a set of options. `fn.experiment` turns it into what `fit` takes.

# %%
changes = {"epochs": 2} if FAST else {}
net, optimizer, dataset, options = fn.experiment(fn.load_recipe("table", **changes), cakes)
result = fn.fit(net, optimizer, dataset, **options)
model = result.model
measured = fn.evaluate(model, cakes.x_test, cakes.y_test)

test = part == "test"
truth = probability[test]  # of yes
label = (sold_out[test] == "yes").astype(int)
best_loss = fn.log_loss(label, np.log([1 - truth, truth]).T)  # log-probabilities are scores
print(f"{'':24} accuracy  log loss")
print(f"{'always no':24} {100 * np.mean(label == 0):6.1f} %")
print(f"{'the network':24} {100 * measured.accuracy:6.1f} %  {measured.log_loss:8.3f}")
print(
    f"{'who knows the formula':24} {100 * np.mean(label == (truth > 0.5)):6.1f} %  {best_loss:8.3f}"
)
print("\nof days that were (rows), the network said no, yes:")
for name, counts in zip(cakes.class_names, measured.confusion, strict=True):
    print(f"  {name:3} {counts}")

# %% [markdown]
# The network comes close to what is possible. (It cannot see the temperature of one row in twelve, and it
# had 1,941 days to learn from.) Accuracy hides how: of the 266 days that were sold out it says no to 162.
# It is not wrong in that. On most of these days the probability was below one half. Who wants to
# be warned of them asks for the probability, and sets a lower bar.
#
# ## 4 What the columns are worth
#
# Shuffle one column of the test rows, so that it says nothing any more, and ask the model again. The
# more its log loss grows, the more it relied on the column (permutation importance; Breiman 2001).
# `predict_scores` takes the table as it is, a dict of columns; so do `predict` and `predict_proba`.

# %%
names = [feature.name for feature in cakes.encoding.features]
inputs = {name: np.array(columns[name])[test] for name in names}


def log_loss_of(table):
    return fn.log_loss(label, fn.predict_scores(model, table))


before = log_loss_of(inputs)
growth = {
    name: [
        log_loss_of({**inputs, name: rng.permutation(inputs[name])}) - before
        for _ in range(2 if FAST else 10)
    ]
    for name in names
}
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
names.sort(key=lambda name: np.mean(growth[name]))
axes.barh(names, [np.mean(growth[n]) for n in names], xerr=[np.std(growth[n]) for n in names])
axes.set(xlabel="growth of the log loss when the column is shuffled")
axes.grid(alpha=0.3)
for name in reversed(names):
    print(f"{name:12} {np.mean(growth[name]):+.3f}")

# %% [markdown]
# The picture has a bar for each column, with the spread of ten shuffles at its end. The date is worth
# most, since the weekday is in it, then the weather, then temperature and café about equally. The waiter
# is worth nothing, as it should be. One thing to know: the season is in the date and in the temperature. Of
# two columns that say the same, each can be shuffled without much harm, so both look worth less than
# they are together.
#
# ## 5 Several numbers at once
#
# Two columns to predict, both numbers: this is regression of two targets. They are standardized for
# training, and predictions come in coffees and scoops.

# %%
sales = load(["coffee", "ice"], drop=["sold_out"])
net, optimizer, dataset, options = fn.experiment(fn.load_recipe("table", **changes), sales)
regression = fn.fit(net, optimizer, dataset, **options).model
predicted = fn.predict(regression, sales.x_test)

figure, panels = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
true_means = np.stack([coffee_mean, np.maximum(ice_mean, 0)], axis=1)[test]
for k, (axes, name) in enumerate(zip(panels, sales.target_names, strict=True)):
    sold = sales.y_test[:, k]
    ours = fn.rmse(sold, predicted[:, k])
    bound = fn.rmse(sold, true_means[:, k])
    print(f"{name:6} RMSE {ours:5.1f}, by the formula {bound:5.1f}; spread {sold.std():5.1f}")
    axes.plot(sold, predicted[:, k], ".", alpha=0.4)
    axes.axline((sold.mean(), sold.mean()), slope=1, color="0.3", linestyle=":")
    axes.set(xlabel=f"{name} sold", ylabel=f"{name} predicted")
    axes.grid(alpha=0.3)

# %% [markdown]
# The picture has a panel for each target, with what was sold along the axis, what was predicted
# upwards, and the diagonal dotted. The coffees are in two clouds, working days at the station near 210 and
# all else near 150, and each is as wide as the noise. The scoops fan out along the diagonal: where more is
# sold, the noise is larger. For coffee the error is almost the noise alone. For ice it is 11 where 8 is
# possible; a temperature that is missing costs most there.
#
# ## 6 Cross-validation
#
# One split is one opinion. `cross_validate` trains each setting on five folds, so that every row to
# train or validate is held out once. Words, gaps and units are learned in each fold anew.


# %%
def small(width, reg):
    return fn.mlp([width], 2), fn.adam(3e-3), {"reg": reg}


settings = fn.grid(width=[8, 64], reg=[0.01] if FAST else [0.0, 0.001, 0.01, 0.1], seed=[0])
common = {"epochs": 2 if FAST else 30, "batch_size": 50, "preprocess": fn.standardize}
folds = fn.cross_validate(
    small, cakes, settings, folds=2 if FAST else 5, monitor="val_loss", **common
)
print("width    reg  log loss of what is held out  accuracy")
for row in folds.table():
    loss, accuracy = (
        f"{scale * row[name]:.{digits}f} ± {scale * row[f'{name}_std']:.{digits}f}"
        for name, scale, digits in (("val_loss", 1, 3), ("val_accuracy", 100, 1))
    )
    print(f"{row['width']:5} {row['reg']:6g}  {loss:27}  {accuracy} %")
print("the best:", folds.best_settings)

# %% [markdown]
# Without regularisation the larger network is worse, because it learns noise; an L2 of 0.1 is too much for
# both. Between 8 and 64 units at 0.01 there is nothing to choose. The numbers after ± are the spread
# over the folds, and it is larger than most differences: a single split would have ranked the settings by
# luck.
#
# ## 7 An ensemble
#
# Eight networks that differ in their seed alone, and then all of them as one, whose probabilities are
# averaged. The ensemble is a model like any other. They have 64 units and no regularisation, and are
# trained for 100 epochs. That is too long, as section 6 makes one expect, and shows best what
# an ensemble and, next, calibration can mend.

# %%
seeds = fn.grid(width=[64], reg=[0.0], seed=range(2 if FAST else 8))
sweep = fn.sweep(small, cakes, seeds, **{**common, "epochs": 2 if FAST else 100})
last = [member.model for member in sweep.members]
committee = fn.join_models(last)
each = [fn.evaluate(model, cakes.x_test, cakes.y_test).log_loss for model in last]
joined = fn.evaluate(committee, cakes.x_test, cakes.y_test)
print(f"log loss of each alone: {' '.join(f'{loss:.3f}' for loss in each)}")
print(f"of all together: {joined.log_loss:.3f}, of who knows the formula {best_loss:.3f}")

# %% [markdown]
# The eight make different mistakes, and in the mean of their probabilities part of these cancels: together
# they are better than the best of them. Choosing one of the eight would have needed luck; averaging does not.
# Even so they are behind the small networks of section 6. An ensemble mends what differs between its
# members, and not what all of them do too much of.
#
# ## 8 Calibration
#
# When a model says 80 percent, is it right in 80 percent of the cases? The first of the eight networks:

# %%
alone = last[0]
said = fn.predict_proba(alone, cakes.x_test)
fn.plot_reliability(label, said, bins=10, title="As trained")

# %% [markdown]
# The picture has two parts. Above, the days are sorted by the probability of what was predicted, and the
# line shows how often it was true. It should follow the dotted diagonal, and bends below it: of days with
# more than 90 percent only 81 percent are right. Below are the numbers of days; two in five are in that
# last bar. The network is overconfident, since it was trained for so long that it knows its training rows.
#
# `calibrate` divides the scores by a number, the temperature, which is found on the validation rows.
# What is predicted stays the same.

# %%
honest = fn.calibrate(alone, cakes.x_val, cakes.y_val)
said_honestly = fn.predict_proba(honest, cakes.x_test)
print(f"temperature {float(honest.targets.temperature):.2f}")
for name, probabilities in (("as trained", said), ("calibrated", said_honestly)):
    off = np.abs(probabilities[:, 1] - truth).mean()
    loss = fn.log_loss(label, np.log(probabilities))
    print(f"{name}: log loss {loss:.3f}; from the true probability {100 * off:.1f} points")
fn.plot_reliability(label, said_honestly, bins=10, title="Calibrated")

# %% [markdown]
# In this picture the line stays close to the diagonal, a little above it, and the bars have moved to the
# left: the network says less than before. The calibration error falls from 9 to 4 percent, and the log
# loss from 0.64 to 0.57. But the distance from the true probability of each day falls only from 15.5 to 13.8
# points. A temperature makes a model honest about how much it knows. It does not make it know more.
#
# ## 9 New rows
#
# Tomorrow's rows have no label, and may have things that training has not seen. Columns go by their
# names, in any order. A missing cell is what it was in training, and so is a word that is new: it has no
# place, so it says nothing.

# %%
new = {
    "weather": ["sun", "rain", "sun", "fog"],
    "temperature": [27.5, 8.0, None, 14.0],
    "cafe": ["harbour", "station", "park", "park"],
    "date": ["2025-07-12", "2025-11-05", "2025-07-13", "2025-05-02"],
    "waiter": ["Ada", "Cem", None, "Dora"],
}
with warnings_in_lines():
    chances, sales_of_day = fn.predict_proba(model, new)[:, 1], fn.predict(regression, new)
for chance, (coffees, scoops), *cells in zip(chances, sales_of_day, *new.values(), strict=True):
    print(f"{cells}: sold out {100 * chance:3.0f} %, {coffees:.0f} coffees, {scoops:.0f} scoops")

# %% [markdown]
# The first row is a sunny Saturday in July at the harbour; the formula says 97 %, 149 coffees and 186
# scoops. The second is a rainy Wednesday at the station: 8 %, 210 and none. The number of scoops
# below 0 is small, but no number that can be sold: nobody told the network. (`loss_fn=fn.poisson_loss`
# does, for counts.) The dates are after all of those in training; a model that is used like this is better
# tested like this, with `split_by="date"`, which keeps the latest rows for testing.
#
# ## 10 Saving and loading
#
# A file of safetensors keeps the parameters, the preprocessing and what was made of the columns. The
# network is code, and is not in it: `load_model` is given it again.

# %%
fn.save_model("cakes.safetensors", model)
net = fn.experiment(fn.load_recipe("table", **changes), cakes).net
again = fn.load_model("cakes.safetensors", net)
same = fn.predict_proba(again, cakes.x_test) == fn.predict_proba(model, cakes.x_test)
print("the same predictions:", same.all())

# %% [markdown]
# From the command line the whole notebook is `funcnet train --dataset cafes.csv --label sold_out --drop
# coffee ice --split-by part`, then `funcnet evaluate` and `funcnet predict`.
#
# Next: [07 As accurate as possible](07_as_accurate_as_possible.ipynb).
