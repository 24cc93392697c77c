import Foundation
import Testing

import func OpenELMBindings.defaultConvertOptions
import func OpenELMBindings.defaultFinetuneOptions
import func OpenELMBindings.defaultGenerationOptions
import func OpenELMBindings.defaultLoadOptions

@testable import OpenELM

/// Defaults of this package equal the core's.
struct DefaultsTests {
    @Test func defaultsEqualTheCores() throws {
        #expect(try LoadOptions().ffiOptions() == defaultLoadOptions())
        #expect(try GenerationOptions().ffiOptions() == defaultGenerationOptions())
        #expect(try FinetuneOptions().ffiOptions() == defaultFinetuneOptions())
        #expect(try ConvertOptions().ffiOptions() == defaultConvertOptions())
        #expect(try ConvertOptions().ffiOptions().verify)
        #expect(try FinetuneOptions().ffiOptions().numLayers == 16)
    }

    @Test func loadOptionsReachTheLibrary() throws {
        let options = LoadOptions(
            dtype: .bfloat16, tokenizer: URL(filePath: "/folder"), keepQuantized: true,
            training: true)
        let bound = try options.ffiOptions()
        #expect(bound.dtype == "bfloat16" && bound.tokenizer == "/folder")
        #expect(bound.keepQuantized == true && bound.training)
    }

    @Test func everyOptimizerAndScheduleReachesTheLibrary() throws {
        var options = FinetuneOptions()
        options.numLayers = nil
        #expect(try options.ffiOptions().numLayers == nil)
        for (optimizer, name) in [
            (.adam, "adam"), (.adamW, "adamW"), (.sgd, "sgd"), (.lion, "lion"),
            (.adafactor, "adafactor"),
        ] as [(OptimizerKind, String)] {
            options.optimizer = optimizer
            #expect(try "\(options.ffiOptions().optimizer)" == name)
        }
        for (schedule, name) in [
            (.constant, "constant"), (.linear, "linear"), (.cosine, "cosine"),
        ] as [(ScheduleShape, String)] {
            options.lrSchedule = schedule
            #expect(try "\(options.ffiOptions().lrSchedule)" == name)
        }
    }
}
