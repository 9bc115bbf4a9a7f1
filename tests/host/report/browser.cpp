// The report in a real browser: nothing is missing, nothing is logged, nothing hangs out of a narrow window.
#include "tests/host/report/pages.hpp"
#include "tests/support/process.hpp"

#include <catch2/catch.hpp>

#include <regex>

namespace tenon::test {
namespace {

// Chromium's path, or "" where there is none.
std::string browser() {
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');)
    for (const char* name : {"chromium-headless-shell", "chromium", "google-chrome"})
      if (std::filesystem::exists(std::filesystem::path(folder) / name)) return folder + "/" + name;
  return "";
}

// Runs after the page's own script, and leaves what it saw in the page's title.
const char* const kProbe = R"js(
const token = document.querySelector(".passage span[style]");
token.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: 40, clientY: 40}));
const told = !document.getElementById("tip").hidden && /loss/.test(document.getElementById("tip").textContent);
document.querySelector(".switch button[data-by=gain]").click();
const by = document.querySelector(".passage").dataset.by;
const missing = [...document.querySelectorAll("nav a")].filter(a => !document.querySelector(a.getAttribute("href")));
const unseen = [...document.querySelectorAll("section, svg, table, .passage")].filter(
  e => !e.getBoundingClientRect().height && !e.closest("thead")); // on a narrow screen cards have no head
const grey = [...document.querySelectorAll("[class*=swatch]")].filter(e => getComputedStyle(e).backgroundColor === "rgba(0, 0, 0, 0)");
document.title = JSON.stringify({told, by, missing: missing.length, unseen: unseen.length, grey: grey.length,
  overflow: document.documentElement.scrollWidth - innerWidth, images: document.images.length});
)js";

std::string with_probe(std::string page) {
  std::smatch nonce;
  REQUIRE(std::regex_search(page, nonce, std::regex("script-src '(nonce-([0-9a-f]+))'")));
  const std::string script = "<script nonce=\"" + nonce.str(2) + "\">" + kProbe + "</script></body>";
  return page.replace(page.rfind("</body>"), 7, script);
}

TEST_CASE("a browser shows a report whole, wide and narrow, and logs nothing") {
  const std::string program = browser();
  if (program.empty()) {
    WARN("there is no Chromium here, so the report was not looked at");
    return;
  }
  const Scratch scratch;
  write_file(scratch.path() / "report.html", with_probe(ReportedEvaluation().page()));
  for (const std::string size : {"1280,900", "360,780"}) {
    INFO(size);
    const Finished shown =
        run_program({program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                     "--user-data-dir=" + (scratch.path() / "profile").string(), "--window-size=" + size,
                     "--enable-logging=stderr", "--dump-dom", "file://" + (scratch.path() / "report.html").string()});
    INFO(shown.err);
    REQUIRE(shown.status == 0);
    CHECK(shown.err.find(":CONSOLE") == std::string::npos);
    CHECK_THAT(shown.out, Catch::Contains("data-ready=\"yes\""));
    CHECK_THAT(shown.out, Catch::Contains("<title>{\"told\":true,\"by\":\"gain\",\"missing\":0,\"unseen\":0,\"grey\":0,"
                                          "\"overflow\":0,\"images\":0}</title>"));
  }
}

} // namespace
} // namespace tenon::test
