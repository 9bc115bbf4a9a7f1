// The parts of the report's page, each a <section> or nothing. Inside the folder only.
// Thread: pure functions.
#pragma once

#include "host/report/report.hpp"

#include <string>

namespace tenon {

std::string verdicts_section(const ReportInput& input);
std::string gains_section(const ReportInput& input);
std::string claims_section(const ReportInput& input);
std::string routing_section(const ReportInput& input);
std::string choices_section(const ReportInput& input);
std::string passages_section(const ReportInput& input);
std::string curves_section(const ReportInput& input);
std::string lineage_section(const ReportInput& input);

// An expert's colour, as a class: "x0" the base, then "x1" to "x8"; from there again, and dashed: "x1 again".
std::string color_class(std::size_t expert);
std::string color_class(const Evaluation& evaluation, const std::string& expert);
// An arm's name, already HTML; an expert alone is its colour and name.
std::string arm_name(const Evaluation& evaluation, const std::string& arm);
// Which colour is whose, as a list; of the composition's experts, and of those compared with if `all`.
std::string legend(const Evaluation& evaluation, bool all);

// Heading, words below it, and what follows, in a section that links can name.
std::string section(const std::string& id, const std::string& heading, const std::string& words,
                    const std::string& inside);
// A table that scrolls by itself on narrow screens. Cells are <td>s and <th>s already.
std::string wide_table(const std::string& header_cells, const std::string& rows, const std::string& label);

const ArmScore* arm_or_null(const std::vector<ArmScore>& arms, const std::string& name);
// A number with its interval below it, small: "22.53" over "20.10 to 25.20".
std::string with_interval(const std::string& shown, const std::string& low, const std::string& high);
std::string perplexity_cell(const ArmScore* arm);
// Of nats: as a change in percent.
std::string change_cell(const Estimate& difference);
double percent_of(double nats); // 100 (e^nats - 1)

} // namespace tenon
