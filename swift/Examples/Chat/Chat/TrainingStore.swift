import Foundation
import OpenELM

/// The options of a run in the app.
struct TrainingOptions: Codable, Equatable, Sendable {
    /// Number of batches to train on.
    var iterations = 100
    /// Rows per batch.
    var batchSize = 2
    /// Learning rate.
    var learningRate = 1e-4
    /// Rank of the adapter.
    var rank = 8

    /// Options of this package.
    var options: FinetuneOptions {
        var options = FinetuneOptions()
        (options.iters, options.batchSize, options.rank) = (iterations, batchSize, rank)
        options.learningRate = learningRate
        options.stepsPerEval = max(1, iterations / 5)
        options.saveEvery = max(1, iterations / 10)
        return options
    }
}

/// A fine-tuning run of the app.
struct TrainingRun: Codable, Identifiable, Equatable, Sendable {
    /// The name of the run, its folder and its adapter.
    let name: String
    /// The name of the model.
    let model: String
    /// The file or folder of the data, in the run's folder.
    let data: String
    let options: TrainingOptions
    /// True if all iterations are complete.
    var isFinished = false

    var id: String { name }
}

/// Runs in a folder, each with a copy of its data, so that it can be resumed after a new start of
/// the app.
struct TrainingStore: Sendable {
    let directory: URL

    /// Reads all runs, and the names of folders that are none.
    func load() throws -> (runs: [TrainingRun], unreadable: [String]) {
        guard FileManager.default.fileExists(atPath: directory.path) else { return ([], []) }
        var (runs, unreadable): ([TrainingRun], [String]) = ([], [])
        for name in try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted()
        where !name.hasPrefix(".") {
            if let run = try? file(name).read(), run.name == name {
                runs.append(run)
            } else {
                unreadable.append(name)
            }
        }
        return (runs, unreadable)
    }

    /// Creates a run with a copy of `data`.
    func create(
        _ name: String, model: String, data: URL, options: TrainingOptions
    ) throws -> TrainingRun {
        let name = name.trimmingCharacters(in: .whitespacesAndNewlines)
        guard !name.isEmpty, !name.hasPrefix("."), !name.contains("/"), name.utf8.count <= 100
        else {
            throw ChatError(localized("Choose a name without a slash or a dot at its beginning."))
        }
        let run = TrainingRun(
            name: name, model: model, data: "data-\(data.lastPathComponent)", options: options)
        let folder = folder(name)
        guard !FileManager.default.fileExists(atPath: folder.path) else {
            throw ChatError(localized("%@ exists. Choose another name.", name))
        }
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try FileManager.default.copyItem(at: data, to: self.data(of: run))
            try file(name).write(run)
        } catch {
            try? FileManager.default.removeItem(at: folder)
            throw error
        }
        return run
    }

    /// Writes the state of a run.
    func save(_ run: TrainingRun) throws { try file(run.name).write(run) }

    /// Deletes a run with its data and adapter.
    func delete(_ run: TrainingRun) throws {
        let folder = folder(run.name)
        guard FileManager.default.fileExists(atPath: folder.path) else { return }
        try FileManager.default.removeItem(at: folder)
    }

    /// The copy of the run's data.
    func data(of run: TrainingRun) -> URL { folder(run.name).appending(path: run.data) }

    /// The folder of the run's adapter.
    func adapter(of run: TrainingRun) -> URL { folder(run.name).appending(path: "adapter") }

    private func folder(_ name: String) -> URL { directory.appending(path: name) }

    private func file(_ name: String) -> JSONFile<TrainingRun> {
        JSONFile(url: folder(name).appending(path: "run.json"))
    }
}
