"""One file and one run: what is matched, what is edited for it, and the proof."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from graftkit import checking
from graftkit.contracts import Data
from graftkit.core.errors import ExportError, MismatchError
from graftkit.model import GraftedModel
from graftkit.transplanting import branches, placing, proving
from graftkit.transplanting.deployed import MARKED, Deployed
from graftkit.transplanting.editing import Edited, check_untouched
from graftkit.transplanting.inner import check_inner
from graftkit.transplanting.inputs import Inputs, by_name
from graftkit.transplanting.known import Known
from graftkit.transplanting.matching import Match, match_layers, near
from graftkit.transplanting.network import Network, stored_numbers
from graftkit.transplanting.placing import HINT, Placement
from graftkit.transplanting.proving import BEHIND, CALL, JOINED, READ, Batch, Point
from graftkit.transplanting.weights import Missing, Others, Update, layer_updates

OUTPUTS, SITES = "outputs", "sites"  # what was compared


class Operation:
    """What becomes of a file. Raises ExportError, when it is made, where the file does not take the run.

    Args:
        inputs: the file's that are the model's, where it gives what the given model gives.

    Attributes:
        matches: the file's layers that are the model's.
        placements: where dendrites go.
    """

    def __init__(self, file: Deployed, model: GraftedModel, known: Known, inputs: Inputs | None):
        self.file, self.model, self.known, self.inputs = file, model, known, inputs
        self.network = Network(file.model.graph, stored_numbers(file.model.graph), file.opset)
        check_inner(file, known, self.network)
        name = file.path.name
        found = match_layers(known, self.network)
        self._check_all_found(found)
        placing.check_clear(known, [match for match in found if self._matters(match)], name)
        self.matches = found
        self.ranks = placing.ranks_of(file.model)
        self.placements = placing.place(model, known, self.network, found, self.ranks, name)

    def edit(self) -> Edited:
        """The file's message with other numbers and further nodes, and what was changed in it. Raises ExportError."""
        edited = Edited(self.file.model, self.network)
        raw = frozenset(place.match.theirs for place in self.placements if place.norm)
        layers = layer_updates(self.known, self.network, self.matches, raw)
        others, lost = Others(self.known, self.network, self.matches).updates()
        if lost:
            names = sorted(set().union(*(self.known.network.sources[use.name] for use in lost)))
            raise ExportError(
                f"{self.file.path.name} has no place for what training made of {', '.join(names)}, {HINT}"
            )
        edited.update([each for each in (*layers, *others) if isinstance(each, Update)])
        for each in layers:
            if isinstance(each, Missing):
                edited.bias(each)
        self._plant(edited)
        edited.finish()
        check_untouched(self.file.model, edited.model, edited)
        return edited

    def prove(
        self, new: onnx.ModelProto, before: Sequence[Batch], after: Sequence[Batch], rows: Data
    ) -> tuple[float, str]:
        """The largest difference of the new file from the trained model, and what was compared.

        Where the file gave what the given model gives, its outputs are compared, on the validation rows, too. Where it
        did not, since other things stand around the model, all sites are, from what the first ones read.

        Args:
            before, after: what the given model and the trained one make of the same batches.

        Raises MismatchError that names the first site, ExportError where the file cannot be run.
        """
        found = proving.whole_file(new, after, self.inputs) if self.inputs else None
        if found is not None and self.inputs and found <= checking.TOLERANCE:
            found = max(found, proving.over_all_rows(new, self.model, rows, self.inputs, self.file.rows))
            if found <= checking.TOLERANCE:
                return found, OUTPUTS
        worst = self._from_inside(new, before, after)
        if self.inputs:
            raise MismatchError("the new file's outputs differ from the trained model's, behind its last site")
        return worst, SITES

    def _from_inside(self, new: onnx.ModelProto, before: Sequence[Batch], after: Sequence[Batch]) -> float:
        name, feeds, (old, now) = self.file.path.name, [*self._given(), *self._feeds()], self._points()
        proving.from_inside(self.file.model, feeds, old, before, f"{name}, compared with the given model,")
        same = proving.outputs_inside(self.file.model, feeds, before)
        what = "the new file, compared with the trained model,"
        worst = proving.from_inside(new, feeds, now, after, what)
        return max([worst, *(proving.one_of(new, feeds, points, after, what) for points in same)])

    def _check_all_found(self, found: Sequence[Match]) -> None:
        there = {ours for match in found for ours in (match.ours, *match.others)}
        grafted = {self.known.sites.get(site) for site in self.model.plan.sites()}
        for place in range(len(self.known.network.layers)):
            if place not in there and (place in grafted or self._trained(place)):
                title = self.known.title(place)
                raise ExportError(f"{self.file.path.name} has no layer with the weights of {title!r}, {HINT}")

    def _trained(self, place: int) -> bool:
        layer = self.known.network.layers[place]
        return any(self.known.changed(use.name) for use in (layer.weight, layer.bias) if use)

    def _matters(self, match: Match) -> bool:
        """Whether it makes a difference which of several layers a match is."""
        places = (match.ours, *match.others)
        if {self.known.sites.get(site) for site in self.model.plan.sites()}.intersection(places):
            return True
        return not all(self.known.same_trained(places[0], other) for other in places)

    def _plant(self, edited: Edited) -> None:
        """Put the dendrites in, in place."""
        marked = self.file.model.ir_version >= MARKED
        wanted = self._wanted()
        for place, graph in zip(
            self.placements, branches.branches_of(self.model, wanted, opset=self.file.opset), strict=True
        ):
            if branches.says_nothing(graph):
                continue
            bound = {branches.INPUT: place.input, branches.JOINED: place.neuron, **self._mask(place)}
            bound[branches.NEURON] = edited.divert(place.node)
            edited.insert(place.node, *branches.planted(graph, place.site, bound, edited.taken, marked=marked))

    def _wanted(self) -> list[branches.Wanted]:
        reads = branches.reads_of(self.model, self.model.traced.inputs)
        sites = {site.key: site for site in self.model.traced.sites}
        return [
            branches.Wanted(
                sites[place.site],
                reads[place.site],
                branches.Norm(*self.known.norm(self.known.network.layers[place.match.ours])) if place.norm else None,
            )
            for place in self.placements
        ]

    def _mask(self, place: Placement) -> dict[str, str]:
        """What the mask of a site's dendrites is called in the file."""
        mask = self.model.plan.at(place.site)[0].mask
        if mask is None:
            return {}
        at = self.model.traced.signature.input_names.index(mask)
        found = next((point.tensor for point in self._given() if int(point.site) == at), None)
        if found is None:
            raise ExportError(
                f"{self.file.path.name} has no input {mask!r}, the mask at the site {place.site!r}; call it so there"
            )
        return {branches.MASK: found}

    def _given(self) -> list[Point]:
        """The file's inputs that are the model's: as the outputs tell, else as they are called."""
        ports = self.model.traced.signature.inputs
        found = by_name(self.file.model, ports)
        if self.inputs is not None:
            found = {name: (at, self.inputs.types[name]) for at, name in enumerate(self.inputs.names)}
        return [Point(name, str(at), proving.GIVEN, dtype) for name, (at, dtype) in found.items()]

    def _feeds(self) -> list[Point]:
        """What the first layers read."""
        at = {match.theirs: match for match in self.matches}
        up, _ = near(self.network, at)
        by_place = {place: site for site, place in self.known.sites.items()}
        feeds = []
        for place, match in at.items():
            layer, site = self.network.layers[place], by_place.get(match.ours)
            if up[layer.node]:
                continue
            if site is None:
                raise ExportError(f"{self.file.path.name} cannot be compared: its first layer is no site")
            feeds.append(Point(self._around(match, site).input or layer.input, site, READ))
        return feeds

    def _points(self) -> tuple[list[Point], list[Point]]:
        """What each site has to say, in the given file and in the new one."""
        by_place = {place: site for site, place in self.known.sites.items()}
        joined = {place.match.theirs: place for place in self.placements}
        old, new = [], []
        for match in self.matches:
            site = by_place.get(match.ours)
            if site is None:
                continue
            point = Point(self._around(match, site).output, site, BEHIND if match.form.folded else CALL)
            old.append(point)
            place = joined.get(match.theirs)
            new.append(point if place is None or place.norm else Point(place.neuron, site, JOINED))
        return old, new

    def _around(self, match: Match, site: str) -> placing.Around:
        return placing.around(self.network.layers[match.theirs], self.model.traced.site(site), self.network, self.ranks)
